//! What launches cost: instructions by class, and the sectors that they move.

/// A class of instructions, by the unit that executes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Sums, products, comparisons and choices of `f32`, integers and bits; moves and conversions.
    Simple,
    /// Integers of 64 bits, which take two instructions of a GPU.
    Wide,
    /// Quotients and roots, which are sequences of instructions.
    Divide,
    /// Arithmetic of `f64`.
    Double,
    /// Loads and stores of global memory.
    Global,
    /// Loads and stores of shared and of a thread's own memory.
    Near,
    /// Shuffles.
    Shuffle,
    /// Branches and returns.
    Branch,
}

/// The number of classes.
pub const CLASSES: usize = 8;

impl Class {
    /// Every class, in the order of [`Cost::issued`].
    pub const ALL: [Class; CLASSES] = [
        Class::Simple,
        Class::Wide,
        Class::Divide,
        Class::Double,
        Class::Global,
        Class::Near,
        Class::Shuffle,
        Class::Branch,
    ];

    /// The class of an instruction that computes.
    pub(crate) fn of(name: &str) -> Class {
        let verb = name.split('.').next().unwrap_or_default();
        let of = name.rsplit('.').next().unwrap_or_default();
        match (verb, of) {
            ("div" | "rem" | "sqrt" | "rcp", _) => Class::Divide,
            (_, "f64") => Class::Double,
            (_, "b64" | "u64" | "s64") => Class::Wide,
            _ => Class::Simple,
        }
    }

    /// Issue slots that an instruction of a warp is taken to need, about as ptxas translates it for sm_90: quotients
    /// and roots are sequences of some ten, `f64` and shuffles have half of the units, 64-bit integers are pairs.
    #[must_use]
    pub const fn slots(self) -> u64 {
        match self {
            Class::Simple | Class::Global | Class::Near | Class::Branch => 1,
            Class::Wide | Class::Double | Class::Shuffle => 2,
            Class::Divide => 10,
        }
    }
}

/// What a launch has cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The kernel.
    pub kernel: String,
    /// Instructions of warps, by [`Class::ALL`].
    pub issued: [u64; CLASSES],
    /// Sectors of 32 bytes that came from memory, through a cache.
    pub read: u64,
    /// Sectors of 32 bytes that went to memory; neighbouring writes are combined in a cache.
    pub written: u64,
    /// Sectors that instructions asked for, each by itself.
    pub asked: u64,
}

impl Cost {
    /// The issue slots of all warps.
    #[must_use]
    pub fn slots(&self) -> u64 {
        self.issued.iter().zip(Class::ALL).map(|(n, class)| n * class.slots()).sum()
    }
}

/// Bytes of a sector, the unit in which memory is moved.
const SECTOR: u64 = 32;
/// A cache of 8 sectors in each of 256 sets: 64 KiB, a part of what a multiprocessor has.
const SETS: u64 = 256;
const WAYS: usize = 8;

/// Sectors that are near, the latest first in each set.
#[derive(Clone)]
struct Cache(Vec<[u64; WAYS]>);

impl Cache {
    fn new() -> Self {
        Cache(vec![[u64::MAX; WAYS]; SETS as usize])
    }

    /// Whether a sector is not near yet. It is now.
    fn misses(&mut self, sector: u64) -> bool {
        let set = &mut self.0[(sector % SETS) as usize];
        let found = set.iter().position(|&s| s == sector);
        set[..=found.unwrap_or(WAYS - 1)].rotate_right(1);
        set[0] = sector;
        found.is_none()
    }
}

/// Counts what launches cost.
#[derive(Clone)]
pub(crate) struct Meter {
    pub(crate) launches: Vec<Cost>,
    read: Cache,
    written: Cache,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Meter { launches: Vec::new(), read: Cache::new(), written: Cache::new() }
    }

    /// Begins a launch, to which nothing is near.
    pub(crate) fn launch(&mut self, kernel: &str) {
        self.launches.push(Cost { kernel: kernel.to_owned(), ..Cost::default() });
        (self.read, self.written) = (Cache::new(), Cache::new());
    }

    pub(crate) fn issue(&mut self, class: Class) {
        if let Some(cost) = self.launches.last_mut() {
            cost.issued[class as usize] += 1;
        }
    }

    /// Counts an access of global memory by the threads of a warp, at these addresses.
    pub(crate) fn access(
        &mut self,
        addresses: impl Iterator<Item = u64>,
        bytes: usize,
        write: bool,
    ) {
        let Some(cost) = self.launches.last_mut() else { return };
        let ends = addresses.map(|at| (at / SECTOR, (at + bytes as u64 - 1) / SECTOR));
        let mut sectors: Vec<u64> = ends.flat_map(|(first, last)| first..=last).collect();
        sectors.sort_unstable();
        sectors.dedup();
        cost.asked += sectors.len() as u64;
        let (cache, count) = match write {
            true => (&mut self.written, &mut cost.written),
            false => (&mut self.read, &mut cost.read),
        };
        *count += sectors.into_iter().filter(|&sector| cache.misses(sector)).count() as u64;
    }
}
