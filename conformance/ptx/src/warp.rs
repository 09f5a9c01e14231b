//! Executes the 32 threads of a warp in lockstep.
//!
//! Where threads diverge, those with the lowest program counter run first, which makes them reconverge where their
//! paths join. A shuffle, or a barrier, waits for all threads that have not returned.

use crate::Error;
use crate::cost::{Class, Meter};
use crate::memory::{Memory, aligned};
use crate::ops::Op;
use crate::parse::{Action, Instruction, Kernel, LOCAL, Operand, SHARED, Space, Special, Way};

pub(crate) const LANES: usize = 32;
/// Instructions after which a warp is considered to be in an endless loop.
const PATIENCE: u64 = 1 << 32;
/// The program counter of a thread that has returned.
const DONE: usize = usize::MAX;

/// The position of a warp in its grid.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) block: u32,
    pub(crate) blocks: u32,
    /// The index of the warp's first thread in the block, and the number of threads in a block.
    pub(crate) first: u32,
    pub(crate) threads: u32,
}

pub(crate) struct Warp<'a> {
    kernel: &'a Kernel,
    params: &'a [u64],
    registers: Vec<[u64; LANES]>,
    local: Vec<Vec<u8>>,
    /// Shared memory, of which each word belongs to the thread that has written it, and after a barrier of its
    /// warp to all of that.
    shared: Vec<u8>,
    owners: Vec<Option<Owner>>,
}

/// Who may access a word of shared memory, by the index of a thread, or of the first of a warp.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Thread(u32),
    Warp(u32),
}

fn trouble(what: impl Into<String>) -> Error {
    Error::Launch(what.into())
}

impl<'a> Warp<'a> {
    pub(crate) fn new(kernel: &'a Kernel, params: &'a [u64]) -> Self {
        let registers = vec![[0; LANES]; kernel.registers];
        let (local, shared) = (vec![vec![0xcb; kernel.local]; LANES], vec![0xcb; kernel.shared]);
        let owners = vec![None; kernel.shared.div_ceil(4)];
        Warp { kernel, params, registers, local, shared, owners }
    }

    /// Forgets who has written to shared memory.
    pub(crate) fn begin_block(&mut self) {
        self.owners.fill(None);
    }

    /// Runs all threads until they return.
    pub(crate) fn run(
        &mut self,
        memory: &mut Memory,
        mut meter: Option<&mut Meter>,
        place: Place,
    ) -> Result<(), Error> {
        let mut at = [DONE; LANES];
        let count = LANES.min((place.threads - place.first) as usize);
        at[..count].fill(0);
        // Threads that wait at a shuffle or a barrier.
        let mut waiting = 0u32;
        for _ in 0..PATIENCE {
            let mut here = DONE;
            for (lane, &pc) in at.iter().enumerate() {
                if waiting >> lane & 1 == 0 {
                    here = here.min(pc);
                }
            }
            if here == DONE {
                // All have returned, or all others wait.
                let Some(first) = at.iter().position(|&pc| pc != DONE) else { return Ok(()) };
                here = at[first];
            }
            let mut active = 0u32;
            for (lane, &pc) in at.iter().enumerate() {
                active |= u32::from(pc == here) << lane;
            }
            let Some(instruction) = self.kernel.code.get(here) else {
                at.iter_mut().filter(|pc| **pc == here).for_each(|pc| *pc = DONE);
                continue;
            };
            if matches!(instruction.action, Action::Shuffle { .. } | Action::Barrier) {
                let mut live = 0u32;
                for (lane, &pc) in at.iter().enumerate() {
                    live |= u32::from(pc != DONE) << lane;
                }
                if active != u32::MAX {
                    waiting |= active;
                    if waiting != live && live == u32::MAX {
                        continue;
                    }
                    let what = "a shuffle or barrier of all threads that not all of them come to";
                    return Err(self.fault(instruction, place, active, trouble(what)));
                }
                waiting = 0;
            }
            let chosen = self.guarded(instruction, active);
            if let Some(meter) = meter.as_deref_mut() {
                self.count(meter, instruction, chosen, place);
            }
            // A branch overrides it.
            for (lane, pc) in at.iter_mut().enumerate() {
                *pc = if active >> lane & 1 == 1 { here + 1 } else { *pc };
            }
            if let Err((lane, error)) = self.step(memory, place, instruction, chosen, &mut at) {
                return Err(self.fault(instruction, place, 1 << lane, error));
            }
        }
        Err(trouble(format!("{} does not end", self.kernel.name)))
    }

    fn count(&self, meter: &mut Meter, instruction: &Instruction, chosen: u32, place: Place) {
        let (space, (base, offset), bytes, write) = match &instruction.action {
            Action::Load { space, bytes, to, from, .. } => (*space, *from, bytes * to.len(), false),
            Action::Store { space, bytes, to, from } => (*space, *to, bytes * from.len(), true),
            Action::Increment { at, .. } => (Space::Generic, *at, 4, true),
            _ => return meter.issue(instruction.class),
        };
        let base = self.all(base, place);
        let mut addresses = (0..LANES)
            .filter(|l| chosen >> l & 1 == 1)
            .map(|l| base[l].wrapping_add(offset))
            .peekable();
        let far = addresses.peek().is_some_and(|&at| at < LOCAL);
        if space == Space::Local || !far {
            return meter.issue(Class::Near);
        }
        meter.issue(Class::Global);
        meter.access(addresses, bytes, write);
    }

    fn fault(&self, instruction: &Instruction, place: Place, lanes: u32, error: Error) -> Error {
        Error::Fault {
            kernel: self.kernel.name.clone(),
            line: instruction.line,
            thread: place.first + lanes.trailing_zeros(),
            block: place.block,
            error: Box::new(error),
        }
    }

    /// The active threads whose guard is true.
    fn guarded(&self, instruction: &Instruction, active: u32) -> u32 {
        let Some((p, expected)) = instruction.guard else { return active };
        let mut chosen = 0u32;
        for (lane, &x) in self.registers[p].iter().enumerate() {
            chosen |= u32::from((x & 1 == 1) == expected) << lane;
        }
        chosen & active
    }

    /// The operand's value in every thread.
    fn all(&self, operand: Operand, place: Place) -> [u64; LANES] {
        match operand {
            Operand::Register(r) => self.registers[r],
            Operand::Value(x) => [x; LANES],
            Operand::Special(Special::Thread) => {
                std::array::from_fn(|lane| u64::from(place.first) + lane as u64)
            }
            Operand::Special(Special::Threads) => [place.threads.into(); LANES],
            Operand::Special(Special::Block) => [place.block.into(); LANES],
            Operand::Special(Special::Blocks) => [place.blocks.into(); LANES],
        }
    }

    /// Executes an instruction in the threads of a mask; an error names its thread.
    fn step(
        &mut self,
        memory: &mut Memory,
        place: Place,
        instruction: &Instruction,
        chosen: u32,
        at: &mut [usize; LANES],
    ) -> Result<(), (usize, Error)> {
        let lanes = || (0..LANES).filter(move |lane| chosen >> lane & 1 == 1);
        match &instruction.action {
            Action::Compute(op, to, from) => {
                let [a, b, c] = std::array::from_fn(|k| {
                    from.get(k).map_or([0; LANES], |&operand| self.all(operand, place))
                });
                let to = &mut self.registers[*to];
                match op {
                    Op::One(f) => lanes().for_each(|l| to[l] = f(a[l])),
                    Op::Two(f) => lanes().for_each(|l| to[l] = f(a[l], b[l])),
                    Op::Three(f) => lanes().for_each(|l| to[l] = f(a[l], b[l], c[l])),
                }
            }
            Action::Parameter(to, k) => {
                lanes().for_each(|l| self.registers[*to][l] = self.params[*k])
            }
            Action::Load { space, bytes, signed, to, from: (base, offset) } => {
                let base = self.all(*base, place);
                for l in lanes() {
                    let address = base[l].wrapping_add(*offset);
                    let all = bytes * to.len();
                    let memory = aligned(address, all)
                        .and_then(|()| {
                            self.open(memory, *space, (place.first, l), address, all, false)
                        })
                        .map_err(|e| (l, e))?;
                    let mut parts = [0u64; 4];
                    for (part, raw) in parts.iter_mut().zip(memory.chunks(*bytes)) {
                        let mut word = [0; 8];
                        word[..*bytes].copy_from_slice(raw);
                        let shift = 64 - 8 * *bytes as u32;
                        let x = u64::from_le_bytes(word);
                        *part = if *signed { ((x << shift) as i64 >> shift) as u64 } else { x };
                    }
                    for (to, part) in to.iter().zip(parts) {
                        self.registers[*to][l] = part;
                    }
                }
            }
            Action::Store { space, bytes, to: (base, offset), from } => {
                let base = self.all(*base, place);
                for l in lanes() {
                    let address = base[l].wrapping_add(*offset);
                    let all = bytes * from.len();
                    let mut raw = [0; 32];
                    for (to, from) in raw.chunks_mut(*bytes).zip(from) {
                        to.copy_from_slice(&self.all(*from, place)[l].to_le_bytes()[..*bytes]);
                    }
                    aligned(address, all)
                        .and_then(|()| {
                            self.open(memory, *space, (place.first, l), address, all, true)
                        })
                        .map_err(|e| (l, e))?
                        .copy_from_slice(&raw[..all]);
                }
            }
            Action::Unpack { bits, to, from } => {
                let from = self.all(*from, place);
                for (k, to) in to.iter().enumerate().filter_map(|(k, to)| to.map(|to| (k, to))) {
                    let mask = u64::MAX >> (64 - bits);
                    lanes().for_each(|l| {
                        self.registers[to][l] = from[l] >> (k as u32 * bits) & mask;
                    });
                }
            }
            Action::Pack { bits, to, from } => {
                let mask = u64::MAX >> (64 - bits);
                let mut out = [0; LANES];
                for (k, part) in from.iter().enumerate() {
                    let part = self.all(*part, place);
                    lanes().for_each(|l| out[l] |= (part[l] & mask) << (k as u32 * bits));
                }
                lanes().for_each(|l| self.registers[*to][l] = out[l]);
            }
            Action::Shuffle { way, to, from, by } => {
                let (from, by) = (self.all(*from, place), self.all(*by, place));
                lanes().for_each(|l| {
                    let by = (by[l] & 31) as usize;
                    let other = match way {
                        Way::Down => l + by,
                        Way::Butterfly => l ^ by,
                        Way::Index => by,
                    };
                    // Beyond the last lane a thread gets its own value.
                    self.registers[*to][l] = from.get(other).copied().unwrap_or(from[l]);
                });
            }
            Action::Barrier => {
                for owner in self.owners.iter_mut().flatten() {
                    if matches!(owner, Owner::Thread(t) if *t - *t % LANES as u32 == place.first) {
                        *owner = Owner::Warp(place.first);
                    }
                }
            }
            Action::Increment { to, at: (base, offset), limit } => {
                let (base, limit) = (self.all(*base, place), self.all(*limit, place));
                for l in lanes() {
                    let address = base[l].wrapping_add(*offset);
                    let counter = aligned(address, 4)
                        .and_then(|()| memory.get_mut(address, 4))
                        .map_err(|e| (l, e))?;
                    let mut raw = [0; 4];
                    raw.copy_from_slice(counter);
                    let before = u32::from_le_bytes(raw);
                    let after = if before >= limit[l] as u32 { 0 } else { before + 1 };
                    counter.copy_from_slice(&after.to_le_bytes());
                    self.registers[*to][l] = before.into();
                }
            }
            Action::Branch(to) => lanes().for_each(|l| at[l] = *to),
            Action::Table(index, places) => {
                let index = self.all(*index, place);
                for l in lanes() {
                    let found = places.get(index[l] as u32 as usize).copied();
                    at[l] = found.ok_or_else(|| (l, trouble("a branch beyond its table")))?;
                }
            }
            Action::Return => lanes().for_each(|l| at[l] = DONE),
            Action::Trap => {
                if let Some(l) = lanes().next() {
                    return Err((l, trouble("a trap")));
                }
            }
        }
        Ok(())
    }

    /// Opens global, local or shared memory. A thread may read the words of shared memory that it has written, or
    /// another of its warp before a barrier, and write those and what none has written.
    fn open<'m>(
        &'m mut self,
        memory: &'m mut Memory,
        space: Space,
        (first, lane): (u32, usize),
        address: u64,
        bytes: usize,
        written: bool,
    ) -> Result<&'m mut [u8], Error> {
        let own = match space {
            Space::Global => return memory.get_mut(address, bytes),
            Space::Local => address,
            Space::Generic if address < LOCAL => return memory.get_mut(address, bytes),
            Space::Generic if address < SHARED => address - LOCAL,
            Space::Generic => {
                let fail = |what| Error::Access { address, bytes, what };
                let at = usize::try_from(address - SHARED).unwrap_or(usize::MAX);
                let end = at.checked_add(bytes).filter(|&end| end <= self.shared.len());
                let Some(end) = end else { return Err(fail("beyond the block's shared memory")) };
                let me = Owner::Thread(first + lane as u32);
                for owner in &mut self.owners[at / 4..end.div_ceil(4)] {
                    match *owner {
                        None if written => {}
                        Some(own) if own == me || own == Owner::Warp(first) => {}
                        _ => return Err(fail("shared memory that this thread has not written")),
                    }
                    *owner = if written { Some(me) } else { *owner };
                }
                return Ok(&mut self.shared[at..end]);
            }
        };
        let end = usize::try_from(own).ok().and_then(|at| Some(at..at.checked_add(bytes)?));
        let found = end.and_then(|range| self.local.get_mut(lane)?.get_mut(range));
        found.ok_or(Error::Access { address, bytes, what: "beyond the thread's own memory" })
    }
}
