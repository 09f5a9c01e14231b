//! Plans the kernel launches of a step, independently of the device.
//!
//! A step is a list of phases. In each, all tensors that need the same kernel share a launch.
//! Tensors of common types have kernels that read them directly. Elementwise rules that compute in `f32`
//! have one that decodes any other storage of up to 256 numbers a block, steps it, and encodes it again.
//! Elsewhere storages are first decoded to values of the compute type in memory, and encoded at the end.

pub(crate) mod gradient;
pub(crate) mod lowrank;
pub(crate) mod newton_schulz;
pub(crate) mod norms;
pub(crate) mod passes;

use std::collections::BTreeMap;

use bitstep::float::Dtype;
use bitstep::rule::DynRule;
use bitstep::rule::{ScalarState, StepContext};

use crate::Error;
use crate::device::Device;
use crate::kernel_spec::{KernelSpec, kernel_spec};
use crate::table::{CHUNK, ENCODED_THREADS, TableRow};

/// Device memory that a step needs besides its tensors. It grows at the first step, or when
/// tensors are added, and is reused afterwards.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Descriptor tables and constants, written at every step.
    tables: Region,
    /// Sums and decoded tensors.
    scratch: Region,
}

impl Workspace {
    /// The addresses that it has allocated, which the owner frees.
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
    /// Allocates one of a length if this is shorter, and frees this.
    fn grow<D: Device>(&mut self, device: &mut D, len: usize) -> Result<bool, D::Error> {
        if len <= self.len {
            return Ok(false);
        }
        let old = std::mem::replace(self, Region { at: device.alloc(len)?, len });
        if old.len > 0 {
            device.free(old.at)?;
        }
        Ok(true)
    }
}

/// Prepared launches, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LaunchList(Vec<PreparedLaunch>);

/// A launch whose table is in device memory.
#[derive(Clone, Debug, PartialEq)]
struct PreparedLaunch {
    kernel: String,
    blocks: u32,
    threads: u32,
    /// The kernel's parameters: the table's address, and its numbers of descriptors and of chunks.
    params: [u64; 3],
}

impl LaunchList {
    /// Launches them in order.
    pub(crate) fn launch<D: Device>(&self, device: &mut D) -> Result<(), Error<D::Error>> {
        self.0.iter().try_for_each(|PreparedLaunch { kernel, blocks, threads, params }| {
            device.launch(kernel, *blocks, *threads, *params).map_err(Error::Device)
        })
    }
}

/// Launches what `fill` plans; returns the readbacks.
pub(crate) fn launch<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    fill: impl Fn(&mut LaunchPlan) -> Result<(), Error<D::Error>>,
) -> Result<Vec<Readback>, Error<D::Error>> {
    let (launch_list, readbacks) = prepare(device, workspace, fill)?;
    launch_list.launch(device)?;
    Ok(readbacks)
}

/// Writes the tables of what `fill` plans in one copy, after growing the workspace if necessary.
pub(crate) fn prepare<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    fill: impl Fn(&mut LaunchPlan) -> Result<(), Error<D::Error>>,
) -> Result<(LaunchList, Vec<Readback>), Error<D::Error>> {
    let plan = loop {
        let mut plan = LaunchPlan::new(workspace);
        fill(&mut plan)?;
        plan.append_tables();
        let (tables, scratch) = (plan.bytes.len(), plan.scratch as usize);
        let grown = [
            workspace.tables.grow(device, tables).map_err(Error::Device)?,
            workspace.scratch.grow(device, scratch).map_err(Error::Device)?,
        ];
        if grown == [false; 2] {
            break plan;
        }
    };
    // First, as it may be refused.
    for (_, kernel) in plan.launches.keys() {
        device.load(kernel).map_err(Error::Device)?;
    }
    if !plan.bytes.is_empty() {
        device.write(workspace.tables.at, &plan.bytes).map_err(Error::Device)?;
    }
    let mut launch_list = Vec::new();
    for ((_, kernel), launch) in plan.launches {
        let (blocks, threads) = launch.grid();
        let params = [launch.at, launch.descs, launch.chunks];
        launch_list.push(PreparedLaunch { kernel, blocks, threads, params });
    }
    Ok((LaunchList(launch_list), plan.readbacks))
}

/// The order of launches. `lowrank` and `newton_schulz` put their own phases into the gaps after `WIDEN` and `APPLY`.
pub(crate) mod phase {
    pub(crate) const FROM_PARAM: u32 = 0;
    pub(crate) const TO_SLOT: u32 = 1;
    pub(crate) const LOAD: u32 = 2;
    /// Converts loaded values from `f32`, which block-wise codes decode to, to another compute type.
    pub(crate) const WIDEN: u32 = 3;
    /// Updates row and column state.
    pub(crate) const SQUARES: u32 = 10;
    pub(crate) const FACTORS: u32 = 50;
    /// Sums over a tensor, which complete its constants.
    pub(crate) const SUMS: u32 = 60;
    /// Completes the constants where sums are over two tensors.
    pub(crate) const FINISH: u32 = 80;
    pub(crate) const APPLY: u32 = 90;
    /// Undoes [`WIDEN`], before the values are encoded.
    pub(crate) const NARROW: u32 = 100_000;
    pub(crate) const STORE: u32 = 100_001;
}

/// Whether a chunk is processed by a block of threads or by a warp.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Granularity {
    #[default]
    Block,
    Warp,
    /// A warp that has shared memory.
    Shared,
}

#[derive(Default)]
struct Launch {
    table: Vec<u8>,
    /// The table's device address.
    at: u64,
    /// The number of descriptors in the table.
    descs: u64,
    /// The number of chunks of all descriptors.
    chunks: u64,
    granularity: Granularity,
    /// The largest number of items in a chunk.
    items: u64,
}

/// The maximum number of threads in a block.
const THREADS: u64 = 256;
/// The maximum number of blocks in a launch; each loops over several chunks beyond that.
const BLOCKS: u64 = 1 << 16;
const WARP: u64 = 32;

impl Launch {
    fn grid(&self) -> (u32, u32) {
        let (chunks, threads) = match self.granularity {
            Granularity::Block => (self.chunks, self.items.next_multiple_of(WARP)),
            Granularity::Warp => (self.chunks.div_ceil(THREADS / WARP), self.chunks * WARP),
            Granularity::Shared => {
                (self.chunks.div_ceil(ENCODED_THREADS / WARP), self.chunks * WARP)
            }
        };
        let most = match self.granularity {
            Granularity::Shared => ENCODED_THREADS,
            _ => THREADS,
        };
        (chunks.clamp(1, BLOCKS) as u32, threads.clamp(WARP, most) as u32)
    }
}

/// The tables and launches of a step.
pub(crate) struct LaunchPlan {
    base: u64,
    bytes: Vec<u8>,
    scratch_base: u64,
    scratch: u64,
    launches: BTreeMap<(u32, String), Launch>,
    pub(crate) readbacks: Vec<Readback>,
}

impl LaunchPlan {
    fn new(workspace: &Workspace) -> LaunchPlan {
        LaunchPlan {
            base: workspace.tables.at,
            bytes: Vec::new(),
            scratch_base: workspace.scratch.at,
            scratch: 0,
            launches: BTreeMap::new(),
            readbacks: Vec::new(),
        }
    }

    /// Adds bytes to the tables; returns their device address.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        at
    }

    /// Allocates scratch memory for `count` elements.
    pub(crate) fn alloc_scratch(&mut self, count: u64, of: Dtype) -> u64 {
        let at = self.scratch_base + self.scratch;
        self.scratch += (count * of.size() as u64).next_multiple_of(256);
        at
    }

    /// Adds `count` zeros to the tables; returns their device address.
    pub(crate) fn push_zeros(&mut self, count: u64, of: Dtype) -> u64 {
        self.push(&vec![0; count as usize * of.size()])
    }

    /// Adds a descriptor to a launch.
    pub(crate) fn launch<L: TableRow>(
        &mut self,
        phase: u32,
        kernel: String,
        granularity: Granularity,
        [chunks, items]: [u64; 2],
        mut desc: L,
    ) {
        if chunks == 0 {
            return;
        }
        let launch = self.launches.entry((phase, kernel)).or_default();
        desc.set_first_block(launch.chunks);
        launch.table.extend_from_slice(bytes(&desc));
        launch.descs += 1;
        launch.chunks += chunks;
        launch.granularity = granularity;
        launch.items = launch.items.max(items.min(CHUNK));
    }

    /// Adds a descriptor of `items` items to a launch whose chunks are processed by blocks.
    pub(crate) fn launch_per_block<L: TableRow>(
        &mut self,
        phase: u32,
        kernel: String,
        items: u64,
        desc: L,
    ) {
        self.launch(phase, kernel, Granularity::Block, [items.div_ceil(CHUNK), items], desc);
    }

    /// Appends the launches' tables.
    fn append_tables(&mut self) {
        let mut launches = std::mem::take(&mut self.launches);
        for launch in launches.values_mut() {
            launch.at = self.push(&launch.table);
        }
        self.launches = launches;
    }

    /// Adds the constants of a step, as far as the host computes them; returns their bytes and address.
    pub(crate) fn constants<E>(
        &mut self,
        rule: &dyn DynRule,
        compute: Dtype,
        step: &StepContext<'_>,
        scalars: &ScalarState,
    ) -> Result<(&'static dyn KernelSpec, Vec<u8>, u64), Error<E>> {
        let kernels = kernel_spec(rule).ok_or_else(|| no_kernel(rule))?;
        let coefs = kernels.coefs(rule, compute, step, scalars).ok_or_else(|| no_kernel(rule))?;
        let at = self.push(&coefs);
        // Readbacks copy them in 8-byte words.
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        Ok((kernels, coefs, at))
    }
}

/// A readback of a job's per-step scalars after its launches.
pub(crate) struct Readback {
    /// The index of the job.
    pub(crate) index: usize,
    pub(crate) what: ReadbackKind,
}

/// The source of a readback.
pub(crate) enum ReadbackKind {
    /// Constants that the host has completed.
    HostConstants(&'static dyn KernelSpec, Dtype, Vec<u8>),
    /// Constants that the device completes: their address and length.
    DeviceConstants(&'static dyn KernelSpec, Dtype, u64, usize),
    /// The address of an `f64`, and the index of its scalar.
    DeviceF64(u64, usize),
}

impl Readback {
    /// Stores the values in the scalars, after the launches.
    pub(crate) fn read_back<D: Device>(
        &self,
        device: &mut D,
        scalars: &mut ScalarState,
    ) -> Result<(), D::Error> {
        match &self.what {
            ReadbackKind::HostConstants(kernels, compute, coefs) => {
                kernels.export_scalars(*compute, coefs, scalars)
            }
            &ReadbackKind::DeviceConstants(kernels, compute, at, len) => {
                let mut coefs = vec![0; len];
                device.read(at, &mut coefs)?;
                kernels.export_scalars(compute, &coefs, scalars);
            }
            &ReadbackKind::DeviceF64(at, which) => {
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

/// A descriptor's bytes.
fn bytes<L: TableRow>(desc: &L) -> &[u8] {
    // SAFETY: descriptors consist of 64-bit integers only, without padding.
    unsafe { std::slice::from_raw_parts((&raw const *desc).cast(), size_of::<L>()) }
}

pub(crate) fn name(dtype: Dtype) -> &'static str {
    dtype.id()
}

/// The type that sums over tensors of a compute type are computed in.
pub(crate) fn wide(compute: Dtype) -> Dtype {
    if compute == Dtype::F64 { Dtype::F64 } else { Dtype::F32 }
}

pub(crate) fn no_kernel<E>(rule: &dyn DynRule) -> Error<E> {
    let all = format!("{rule:?}");
    let name = all.split([' ', '(']).next().unwrap_or_default();
    Error::NoKernel(format!("rules of the kind `{name}`"))
}
