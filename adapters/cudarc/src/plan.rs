//! From tensors to launches: the same for every device.
//!
//! A step is a list of phases. In each, all tensors that need the same kernel go in one launch.
//! Tensors of the usual types run the kernels of those; any other storage is first turned into
//! plain numbers of the type to compute in, and back at the end, as the core does it.

use std::collections::BTreeMap;

use bitstep::any::{AnyRule, Arithmetic};
use bitstep::factored::Layout;
use bitstep::real::Dtype;
use bitstep::rule::{Scalars, Start, Step};

use crate::Error;
use crate::device::Device;
use crate::lowrank::renew;
use crate::place::{Moves, Place, direct};
use crate::table::{CHUNK, Line, Move, Row};
use crate::typed::{Shape, Typed, low, orthogonal, typed};

mod making;

/// The update of one tensor.
pub struct Job<'a> {
    /// What moves it.
    pub rule: &'a dyn AnyRule,
    /// How 16-bit parameters are computed.
    pub arithmetic: Arithmetic,
    /// The step.
    pub step: Step<'a>,
    /// The carried numbers, which have been advanced.
    pub scalars: &'a mut Scalars,
    /// The parameter's dimensions.
    pub shape: &'a [usize],
    /// The parameter.
    pub param: Place,
    /// Its gradient: plain numbers.
    pub grad: (Dtype, u64),
    /// Its state; `None` for a slot that is not in use.
    pub slots: Vec<Option<Place>>,
    /// Whether the slots that start as the parameter are to be filled.
    pub starts: bool,
    /// Memory of [`KEPT`] bytes where the device keeps what it finds out for the carried numbers,
    /// from step to step; `None`: they are read back at once.
    pub kept: Option<u64>,
    /// Where the device has a number of type `f64` that the gradient is multiplied by on its way
    /// into the step, if it is; the gradient itself stays as it is.
    pub by: Option<u64>,
}

/// Bytes of [`Job::kept`].
pub const KEPT: usize = 512;
/// Where constants are kept, after the number of a norm and its limiter.
pub(crate) const KEPT_COEFS: u64 = 64;

/// Device memory that a step needs beside its tensors. It grows at the first step, or when
/// tensors are added, and is then reused.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Tables and constants, written at every step.
    tables: Region,
    /// Sums, and numbers on their way from one storage to another.
    scratch: Region,
}

impl Workspace {
    /// What has been allocated: its owner's to free.
    pub fn memory(&self) -> impl Iterator<Item = u64> {
        [self.tables, self.scratch].into_iter().filter(|r| r.len > 0).map(|r| r.at)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Region {
    at: u64,
    len: usize,
}

impl Region {
    fn grow<D: Device>(&mut self, device: &mut D, len: usize) -> Result<bool, D::Error> {
        if len <= self.len {
            return Ok(false);
        }
        if self.len > 0 {
            device.free(self.at)?;
        }
        *self = Region::default();
        *self = Region { at: device.alloc(len)?, len };
        Ok(true)
    }
}

/// Runs one step of all jobs.
///
/// # Errors
/// A rule or storage without kernels, before anything is launched; or the device's own.
pub fn run<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    jobs: &mut [Job<'_>],
) -> Result<(), Error<D::Error>> {
    let (ready, records) = plan(device, workspace, jobs)?;
    ready.launch(device)?;
    for record in records {
        record.note(device, jobs[record.index].scalars).map_err(Error::Device)?;
    }
    Ok(())
}

/// Plans one step of all jobs.
pub(crate) fn plan<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    jobs: &mut [Job<'_>],
) -> Result<(Ready, Vec<Record>), Error<D::Error>> {
    jobs.iter_mut().try_for_each(|job| renew(device, job))?;
    prepare(device, workspace, |plan| {
        jobs.iter().enumerate().try_for_each(|(index, job)| plan.job(index, job))
    })
}

/// Launches that are ready: kernel, blocks and threads, parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ready(Vec<(String, [u32; 2], [u64; 3])>);

impl Ready {
    /// Launches them, in their order.
    pub(crate) fn launch<D: Device>(&self, device: &mut D) -> Result<(), Error<D::Error>> {
        self.0.iter().try_for_each(|(kernel, [blocks, threads], params)| {
            device.launch(kernel, *blocks, *threads, *params).map_err(Error::Device)
        })
    }
}

/// Launches what `fill` plans; returns what is to be noted of it in the end.
pub(crate) fn launch<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    fill: impl Fn(&mut Plan) -> Result<(), Error<D::Error>>,
) -> Result<Vec<Record>, Error<D::Error>> {
    let (ready, records) = prepare(device, workspace, fill)?;
    ready.launch(device)?;
    Ok(records)
}

/// Writes the tables of what `fill` plans, in one go; allocates if it never needed so much.
pub(crate) fn prepare<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    fill: impl Fn(&mut Plan) -> Result<(), Error<D::Error>>,
) -> Result<(Ready, Vec<Record>), Error<D::Error>> {
    let plan = loop {
        let mut plan = Plan::new(workspace);
        fill(&mut plan)?;
        plan.tables();
        let (tables, scratch) = (plan.bytes.len(), plan.scratch as usize);
        let grown = [
            workspace.tables.grow(device, tables).map_err(Error::Device)?,
            workspace.scratch.grow(device, scratch).map_err(Error::Device)?,
        ];
        if grown == [false; 2] {
            break plan;
        }
    };
    if !plan.bytes.is_empty() {
        device.write(workspace.tables.at, &plan.bytes).map_err(Error::Device)?;
    }
    let mut ready = Vec::new();
    for ((_, kernel), launch) in plan.launches {
        device.load(&kernel).map_err(Error::Device)?;
        let (blocks, threads) = launch.grid();
        ready.push((kernel, [blocks, threads], [launch.at, launch.lines, launch.chunks]));
    }
    Ok((Ready(ready), plan.records))
}

/// When a launch comes.
pub(crate) mod phase {
    pub(crate) const FROM_PARAM: u32 = 0;
    pub(crate) const TO_SLOT: u32 = 1;
    pub(crate) const LOAD: u32 = 2;
    pub(crate) const WIDEN: u32 = 3;
    pub(crate) const SQUARES: u32 = 10;
    pub(crate) const FOLD_SQUARES: u32 = 11;
    pub(crate) const TRACK: u32 = 30;
    pub(crate) const FOLD_ROWS: u32 = 31;
    pub(crate) const FACTORS: u32 = 50;
    pub(crate) const SUMS: u32 = 60;
    pub(crate) const FOLD_SUMS: u32 = 61;
    pub(crate) const FINISH: u32 = 80;
    pub(crate) const KEEP: u32 = 81;
    pub(crate) const APPLY: u32 = 90;
    pub(crate) const NARROW: u32 = 100_000;
    pub(crate) const STORE: u32 = 100_001;
}

/// Who gets a chunk.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Share {
    #[default]
    Block,
    Warp,
}

#[derive(Default)]
struct Launch {
    table: Vec<u8>,
    at: u64,
    lines: u64,
    chunks: u64,
    share: Share,
    /// The most items in a chunk.
    items: u64,
}

/// Threads in a block, at the most.
const THREADS: u64 = 256;
/// Blocks of a launch, at the most: they go round.
const BLOCKS: u64 = 1 << 16;
const WARP: u64 = 32;

impl Launch {
    fn grid(&self) -> (u32, u32) {
        let (chunks, threads) = match self.share {
            Share::Block => (self.chunks, self.items.next_multiple_of(WARP)),
            Share::Warp => (self.chunks.div_ceil(THREADS / WARP), self.chunks * WARP),
        };
        (chunks.clamp(1, BLOCKS) as u32, threads.clamp(WARP, THREADS) as u32)
    }
}

/// What is written and launched.
pub(crate) struct Plan {
    base: u64,
    bytes: Vec<u8>,
    scratch_base: u64,
    scratch: u64,
    launches: BTreeMap<(u32, String), Launch>,
    pub(crate) records: Vec<Record>,
}

/// Something of which a rule's numbers are noted in the end.
pub(crate) struct Record {
    /// The job.
    pub(crate) index: usize,
    pub(crate) what: Noted,
}

/// What it is, and where.
pub(crate) enum Noted {
    /// Constants that the host has finished.
    Finished(&'static dyn Typed, Dtype, Vec<u8>),
    /// Constants that the device finishes, and their length.
    Constants(&'static dyn Typed, Dtype, u64, usize),
    /// A number, and which of those carried it is.
    Number(u64, usize),
}

impl Record {
    /// Notes the numbers, once they are there.
    pub(crate) fn note<D: Device>(
        &self,
        device: &mut D,
        scalars: &mut Scalars,
    ) -> Result<(), D::Error> {
        match &self.what {
            Noted::Finished(typed, compute, coefs) => typed.record(*compute, coefs, scalars),
            &Noted::Constants(typed, compute, at, len) => {
                let mut coefs = vec![0; len];
                device.read(at, &mut coefs)?;
                typed.record(compute, &coefs, scalars);
            }
            &Noted::Number(at, which) => {
                let mut bytes = [0; 8];
                device.read(at, &mut bytes)?;
                if let Some(number) = scalars.get_mut(which) {
                    *number = f64::from_le_bytes(bytes);
                }
            }
        }
        Ok(())
    }
}

/// A line's bytes.
fn bytes<L: Line>(line: &L) -> &[u8] {
    // SAFETY: lines are made of 64-bit numbers and nothing else.
    unsafe { std::slice::from_raw_parts((&raw const *line).cast(), size_of::<L>()) }
}

pub(crate) fn name(dtype: Dtype) -> &'static str {
    dtype.id()
}

/// The type of sums.
pub(crate) fn wide(compute: Dtype) -> Dtype {
    if compute == Dtype::F64 { Dtype::F64 } else { Dtype::F32 }
}

pub(crate) fn no_kernel<E>(rule: &dyn AnyRule) -> Error<E> {
    let all = format!("{rule:?}");
    let name = all.split([' ', '(']).next().unwrap_or_default();
    Error::NoKernel(format!("rules of the kind `{name}`"))
}
