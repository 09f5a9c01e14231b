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
use bitstep::storage::{Companded, Format};

use crate::Error;
use crate::device::Device;
use crate::table::{CHUNK, Fold, Line, MAX_SLOTS, Move, ROWS, Row};
use crate::typed::{Shape, Typed, typed};

/// How numbers rest in the device's memory, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// In a format: its numbers or codes, and what stands beside them (0 for plain numbers).
    At(Format, u64, u64),
    /// As 16-bit numbers that are rounded at random.
    Dithered {
        /// Their type.
        dtype: Dtype,
        /// Where they are.
        at: u64,
        /// 16 random bits for each; 0 to count them from seed and step.
        bits: u64,
        /// The seed, and the number of the step.
        counter: [u64; 2],
    },
}

impl Place {
    /// Plain numbers.
    #[must_use]
    pub fn plain(dtype: Dtype, at: u64) -> Place {
        Place::At(Format::Plain(dtype), at, 0)
    }

    fn dtype(&self) -> Option<Dtype> {
        match self {
            Place::At(Format::Plain(dtype), ..) => Some(*dtype),
            _ => None,
        }
    }

    fn address(&self) -> u64 {
        match *self {
            Place::At(_, at, _) | Place::Dithered { at, .. } => at,
        }
    }
}

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
}

/// Device memory that a step needs beside its tensors. It grows at the first step, or when
/// tensors are added, and is then reused.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Tables and constants, written at every step.
    tables: Region,
    /// Sums, and numbers on their way from one storage to another.
    scratch: Region,
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
    let plan = loop {
        let mut plan = Plan::new(workspace);
        for (index, job) in jobs.iter().enumerate() {
            plan.job(index, job)?;
        }
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
    for ((_, kernel), launch) in &plan.launches {
        let (blocks, threads) = launch.grid();
        let params = [launch.at, launch.lines, launch.chunks];
        device.launch(kernel, blocks, threads, params).map_err(Error::Device)?;
    }
    for record in plan.records {
        let coefs = match record.finished {
            Some(coefs) => coefs,
            None => {
                let mut coefs = vec![0; record.len];
                device.read(record.at, &mut coefs).map_err(Error::Device)?;
                coefs
            }
        };
        record.typed.record(record.compute, &coefs, jobs[record.index].scalars);
    }
    Ok(())
}

/// When a launch comes.
mod phase {
    pub(super) const FROM_PARAM: u32 = 0;
    pub(super) const TO_SLOT: u32 = 1;
    pub(super) const LOAD: u32 = 2;
    pub(super) const WIDEN: u32 = 3;
    pub(super) const SQUARES: u32 = 10;
    pub(super) const FOLD_SQUARES: u32 = 11;
    pub(super) const TRACK: u32 = 30;
    pub(super) const FOLD_ROWS: u32 = 31;
    pub(super) const FACTORS: u32 = 50;
    pub(super) const SUMS: u32 = 60;
    pub(super) const FOLD_SUMS: u32 = 61;
    pub(super) const FINISH: u32 = 80;
    pub(super) const APPLY: u32 = 90;
    pub(super) const NARROW: u32 = 100;
    pub(super) const STORE: u32 = 101;
}

/// Who gets a chunk.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Share {
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
struct Plan {
    base: u64,
    bytes: Vec<u8>,
    scratch_base: u64,
    scratch: u64,
    launches: BTreeMap<(u32, String), Launch>,
    records: Vec<Record>,
}

/// Constants of which something is noted in the end.
struct Record {
    /// The job.
    index: usize,
    typed: &'static dyn Typed,
    compute: Dtype,
    at: u64,
    len: usize,
    /// The constants; `None` if the device finishes them.
    finished: Option<Vec<u8>>,
}

/// A line's bytes.
fn bytes<L: Line>(line: &L) -> &[u8] {
    // SAFETY: lines are made of 64-bit numbers and nothing else.
    unsafe { std::slice::from_raw_parts((&raw const *line).cast(), size_of::<L>()) }
}

fn name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "f64",
        Dtype::F32 => "f32",
        Dtype::Bf16 => "bf16",
        Dtype::F16 => "f16",
    }
}

/// The type of sums.
fn wide(compute: Dtype) -> Dtype {
    if compute == Dtype::F64 { Dtype::F64 } else { Dtype::F32 }
}

impl Plan {
    fn new(workspace: &Workspace) -> Plan {
        Plan {
            base: workspace.tables.at,
            bytes: Vec::new(),
            scratch_base: workspace.scratch.at,
            scratch: 0,
            launches: BTreeMap::new(),
            records: Vec::new(),
        }
    }

    /// Bytes to be written; returns where they will be.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        at
    }

    /// Room for so many numbers.
    fn room(&mut self, count: u64, of: Dtype) -> u64 {
        let at = self.scratch_base + self.scratch;
        self.scratch += (count * of.size() as u64).next_multiple_of(256);
        at
    }

    /// So many zeros.
    fn zeros(&mut self, count: u64, of: Dtype) -> u64 {
        self.put(&vec![0; count as usize * of.size()])
    }

    /// Adds a line to a launch.
    fn add<L: Line>(
        &mut self,
        phase: u32,
        kernel: String,
        share: Share,
        [chunks, items]: [u64; 2],
        mut line: L,
    ) {
        if chunks == 0 {
            return;
        }
        let launch = self.launches.entry((phase, kernel)).or_default();
        line.set_first(launch.chunks);
        launch.table.extend_from_slice(bytes(&line));
        launch.lines += 1;
        launch.chunks += chunks;
        launch.share = share;
        launch.items = launch.items.max(items.min(CHUNK));
    }

    /// Adds a line of so many items, dealt out to blocks of threads.
    fn each<L: Line>(&mut self, phase: u32, kernel: String, items: u64, line: L) {
        self.add(phase, kernel, Share::Block, [items.div_ceil(CHUNK), items], line);
    }

    /// Puts the tables where the launches will find them.
    fn tables(&mut self) {
        let mut launches = std::mem::take(&mut self.launches);
        for launch in launches.values_mut() {
            launch.at = self.put(&launch.table);
        }
        self.launches = launches;
    }

    fn job<E>(&mut self, index: usize, job: &Job<'_>) -> Result<(), Error<E>> {
        let no_kernel = || {
            let all = format!("{:?}", job.rule);
            let name = all.split([' ', '(']).next().unwrap_or_default();
            Error::NoKernel(format!("rules of the kind `{name}`"))
        };
        let typed = typed(job.rule).ok_or_else(no_kernel)?;
        let compute = job.arithmetic.compute(job.param.dtype());
        let sums = typed.needs_sums(job.rule).ok_or_else(no_kernel)?;
        let mut coefs =
            typed.coefs(job.rule, compute, &job.step, job.scalars).ok_or_else(no_kernel)?;
        let len = job.shape.iter().product::<usize>() as u64;
        let sums = sums && {
            if len == 0 {
                typed.finish_empty(compute, &mut coefs);
            }
            len > 0
        };
        let at = self.put(&coefs);
        let layout = Layout::of(job.shape).filter(|_| typed.shape() == Shape::Matrix);
        let slots = job.slots.get(..typed.slots()).unwrap_or_default();
        let direct = match layout {
            None => direct(compute, &job.param, job.grad.0, slots),
            // A matrix rule has kernels for tensors of the type to compute in only.
            Some(_) => {
                direct(compute, &job.param, job.grad.0, slots).filter(|s| *s == name(compute))
            }
        };
        if job.starts {
            for (k, slot) in job.slots.iter().enumerate() {
                if let Some(slot) = slot
                    && job.rule.slot_start(k) == Start::Parameter
                {
                    self.copy(&job.param, slot, len)?;
                }
            }
        }
        let mut row = Row { len, coefs: at, ..Row::default() };
        let mut moves = Vec::new();
        if direct.is_some() {
            (row.param, row.grad) = (job.param.address(), job.grad.1);
            for (to, slot) in row.slots.iter_mut().zip(slots) {
                *to = slot.map_or(0, |s| s.address());
            }
        } else {
            row.param = self.open(&mut moves, compute, &job.param, len, true)?;
            let (dtype, at) = job.grad;
            row.grad = self.open(&mut moves, compute, &Place::plain(dtype, at), len, false)?;
            for (to, slot) in row.slots.iter_mut().zip(slots) {
                if let Some(slot) = slot {
                    *to = self.open(&mut moves, compute, slot, len, true)?;
                }
            }
        }
        let suffix = direct.unwrap_or_else(|| name(compute));
        let stem = typed.stem();
        let mut prefix = stem.to_owned();
        if let Some(layout) = layout {
            row.height = layout.rows as u64;
            row.width = layout.cols as u64;
            self.matrix(&mut moves, typed, compute, layout.batches as u64, job, &mut row)?;
            prefix.push_str("_scaled");
        }
        if sums {
            let wide = wide(compute);
            let blocks = len.div_ceil(CHUNK);
            let to = self.room(2 * blocks, wide);
            let kernel = format!("{prefix}_sums_{suffix}");
            self.add(phase::SUMS, kernel, Share::Warp, [blocks, len], Row { sums: to, ..row });
            let sums = self.fold(phase::FOLD_SUMS, wide, 2, blocks, to);
            let kernel = format!("{stem}_finish_{}", name(compute));
            self.add(phase::FINISH, kernel, Share::Block, [1, 1], Row { sums, ..row });
        }
        self.each(phase::APPLY, format!("{prefix}_apply_{suffix}"), len, Row { ..row });
        if typed.records() {
            let finished = if sums { None } else { Some(coefs.clone()) };
            self.records.push(Record { index, typed, compute, at, len: coefs.len(), finished });
        }
        for (phase, kernel, items, line) in moves {
            self.each(phase, kernel, items, Move { ..line });
        }
        Ok(())
    }

    /// Copies a parameter into a slot, by way of `f64` if it is of that type, else of `f32`.
    fn copy<E>(&mut self, from: &Place, to: &Place, len: u64) -> Result<(), Error<E>> {
        let by = wide(from.dtype().unwrap_or(Dtype::F32));
        let plain = self.room(len, by);
        for (phase, verb, place) in
            [(phase::FROM_PARAM, "load", from), (phase::TO_SLOT, "store", to)]
        {
            let Some((kernel, items, line)) = storage(place, by, len) else {
                return Err(Error::NoKernel(format!("{place:?} to start from")));
            };
            self.each(phase, format!("{verb}_{kernel}"), items, Move { plain, ..line });
        }
        Ok(())
    }

    /// Makes sure that a tensor is there in the type to compute in; returns where.
    fn open<E>(
        &mut self,
        moves: &mut Vec<(u32, String, u64, Move)>,
        compute: Dtype,
        place: &Place,
        len: u64,
        written: bool,
    ) -> Result<u64, Error<E>> {
        if place.dtype() == Some(compute) {
            return Ok(place.address());
        }
        let Some((kernel, items, line)) = storage(place, compute, len) else {
            return Err(Error::NoKernel(format!("{place:?}")));
        };
        let mut go = |inner: bool, kernel: &str, items, line| {
            let (load, store) =
                if inner { (phase::WIDEN, phase::NARROW) } else { (phase::LOAD, phase::STORE) };
            moves.push((load, format!("load_{kernel}"), items, line));
            if written {
                moves.push((store, format!("store_{kernel}"), items, line));
            }
        };
        let plain = match place.dtype() {
            Some(_) => {
                let plain = self.room(len, compute);
                go(false, &kernel, items, Move { plain, ..line });
                return Ok(plain);
            }
            None => self.room(len, Dtype::F32),
        };
        go(false, &kernel, items, Move { plain, ..line });
        if compute == Dtype::F32 {
            return Ok(plain);
        }
        let to = self.room(len, compute);
        let kernel = format!("f32_{}", name(compute));
        go(true, &kernel, len, Move { items: len, len, main: plain, plain: to, ..Move::default() });
        Ok(to)
    }

    /// Folds `segments` times `len` numbers to one each; returns where those are.
    fn fold(&mut self, phase: u32, of: Dtype, segments: u64, len: u64, from: u64) -> u64 {
        let (mut from, mut len, mut phase) = (from, len, phase);
        while len > 1 {
            let blocks = segments * len.div_ceil(CHUNK);
            let to = self.room(blocks, of);
            self.fold_once(phase, of, segments, len, from, to);
            (from, len, phase) = (to, len.div_ceil(CHUNK), phase + 1);
        }
        from
    }

    fn fold_once(&mut self, phase: u32, of: Dtype, segments: u64, len: u64, from: u64, to: u64) {
        let blocks = segments * len.div_ceil(CHUNK);
        let kernel = format!("fold_{}", name(of));
        self.add(
            phase,
            kernel,
            Share::Warp,
            [blocks, len],
            Fold { first: 0, len, segments, width: 1, from, to },
        );
    }

    /// The passes over rows and columns, which leave factors.
    fn matrix<E>(
        &mut self,
        moves: &mut Vec<(u32, String, u64, Move)>,
        typed: &dyn Typed,
        compute: Dtype,
        batches: u64,
        job: &Job<'_>,
        row: &mut Row,
    ) -> Result<(), Error<E>> {
        let (of, stem, suffix) = (wide(compute), typed.stem(), name(compute));
        let (height, width) = (row.height, row.width);
        let (rows, cols) = (batches * height, batches * width);
        // Of a matrix without elements there may be no state.
        let nothing = Place::plain(compute, 0);
        let [row_state, col_state] = [typed.slots(), typed.slots() + 1]
            .map(|k| job.slots.get(k).copied().flatten().unwrap_or(nothing));
        let row_state = self.open(moves, compute, &row_state, rows, true)?;
        let col_state = self.open(moves, compute, &col_state, cols, true)?;

        let a_row = width.div_ceil(CHUNK);
        let row_sums = if width == 0 {
            self.zeros(rows, of)
        } else {
            let to = self.room(rows * a_row, of);
            let kernel = format!("{stem}_rows_{suffix}");
            self.add(
                phase::SQUARES,
                kernel,
                Share::Warp,
                [rows * a_row, width],
                Row { sums: to, ..*row },
            );
            self.fold(phase::FOLD_SQUARES, of, rows, a_row, to)
        };
        let a_col = height.div_ceil(ROWS);
        let col_sums = if height == 0 {
            self.zeros(cols, of)
        } else {
            let mut from = self.room(cols * a_col, of);
            let kernel = format!("{stem}_cols_{suffix}");
            self.each(phase::SQUARES, kernel, cols * a_col, Row { sums: from, ..*row });
            let (mut len, mut phase) = (a_col, phase::FOLD_SQUARES);
            while len > 1 {
                let items = cols * len.div_ceil(ROWS);
                let to = self.room(items, of);
                self.each(
                    phase,
                    format!("columns_{}", name(of)),
                    items,
                    Fold { first: 0, len, segments: batches, width, from, to },
                );
                (from, len, phase) = (to, len.div_ceil(ROWS), phase + 1);
            }
            from
        };
        let coefs = row.coefs;
        self.each(
            phase::TRACK,
            format!("{stem}_track_rows_{suffix}"),
            rows,
            Row { len: rows, param: row_state, sums: row_sums, width, coefs, ..Row::default() },
        );
        self.each(
            phase::TRACK,
            format!("{stem}_track_cols_{suffix}"),
            cols,
            Row {
                len: cols,
                param: col_state,
                sums: col_sums,
                width: height,
                coefs,
                ..Row::default()
            },
        );
        // One level at least: a block of its own is how even one number is summed.
        let blocks = height.div_ceil(CHUNK);
        let to = self.room(batches * blocks, of);
        self.fold_once(phase::FOLD_ROWS, of, batches, height, row_sums, to);
        let sums = self.fold(phase::FOLD_ROWS + 1, of, batches, blocks, to);
        row.factors = [row_sums, col_sums, self.room(batches, of)];
        let factors = row.factors;
        self.each(
            phase::FACTORS,
            format!("{stem}_factors_{suffix}"),
            rows,
            Row { len: rows, sums, factors, height, coefs, ..Row::default() },
        );
        Ok(())
    }
}

/// The kernels' suffix for tensors of these types, if there are such kernels.
fn direct(
    compute: Dtype,
    param: &Place,
    grad: Dtype,
    slots: &[Option<Place>],
) -> Option<&'static str> {
    use Dtype::{Bf16, F16, F32};
    let fits = |p: Dtype, g: Dtype, s: Dtype| {
        param.dtype() == Some(p)
            && grad == g
            && slots.iter().flatten().all(|slot| slot.dtype() == Some(s))
    };
    if slots.len() > MAX_SLOTS {
        return None;
    }
    if fits(compute, compute, compute) {
        return Some(name(compute));
    }
    let mixed = [
        (Bf16, Bf16, Bf16, "f32_bf16"),
        (Bf16, Bf16, F32, "f32_bf16_f32"),
        (F16, F16, F16, "f32_f16"),
    ];
    let found = mixed.into_iter().find(|&(p, g, s, _)| compute == F32 && fits(p, g, s));
    found.map(|(.., suffix)| suffix)
}

/// The kernels between a storage and plain numbers (of `plain` type if it is plain itself, else
/// `f32`), its number of items, and its line.
fn storage(place: &Place, plain: Dtype, len: u64) -> Option<(String, u64, Move)> {
    let base = Move { items: len, len, ..Move::default() };
    let (format, main, side) = match *place {
        Place::Dithered { dtype, at, bits, counter } => {
            let kernel = format!("dithered_{}", name(dtype));
            return Some((kernel, len, Move { main: at, side: bits, with: counter, ..base }));
        }
        Place::At(format, main, side) => (format, main, side),
    };
    let base = Move { main, side, ..base };
    let blocks = |kernel: &str, block: usize, with: [u64; 2]| {
        let items = len.div_ceil(block.max(1) as u64);
        Some((kernel.to_owned(), items, Move { items, with, ..base }))
    };
    match format {
        Format::Plain(dtype) => Some((format!("{}_{}", name(dtype), name(plain)), len, base)),
        Format::Split(dtype, bits) => Some((format!("split_{}_{bits}", name(dtype)), len, base)),
        Format::Kahan(dtype) => Some((format!("kahan_{}", name(dtype)), len, base)),
        Format::Companded(c) => {
            use bitstep::storage::Codec;
            blocks("companded", c.block(), [u64::from(c == Companded::Momentum), 0])
        }
        Format::Dynamic(c) => {
            use bitstep::storage::Codec;
            blocks("dynamic", c.block(), [u64::from(c.signed) | u64::from(c.grid) << 1, 0])
        }
        Format::Scaled8(c) => blocks("scaled8", c.block, [c.signed.into(), c.block as u64]),
        Format::Scaled4(c) => blocks("scaled4", c.block, [c.signed.into(), c.block as u64]),
        Format::Fp8(c) => blocks("fp8", c.block, [0, c.block as u64]),
        _ => None,
    }
}
