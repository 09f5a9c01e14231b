//! How a plan is made: which kernels the update of a tensor takes.

use super::*;

impl Plan {
    pub(super) fn new(workspace: &Workspace) -> Plan {
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
    pub(crate) fn put(&mut self, bytes: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        at
    }

    /// Room for so many numbers.
    pub(crate) fn room(&mut self, count: u64, of: Dtype) -> u64 {
        let at = self.scratch_base + self.scratch;
        self.scratch += (count * of.size() as u64).next_multiple_of(256);
        at
    }

    /// So many zeros.
    pub(crate) fn zeros(&mut self, count: u64, of: Dtype) -> u64 {
        self.put(&vec![0; count as usize * of.size()])
    }

    /// Adds a line to a launch.
    pub(crate) fn add<L: Line>(
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
    pub(crate) fn each<L: Line>(&mut self, phase: u32, kernel: String, items: u64, line: L) {
        self.add(phase, kernel, Share::Block, [items.div_ceil(CHUNK), items], line);
    }

    /// Puts the tables where the launches will find them.
    pub(super) fn tables(&mut self) {
        let mut launches = std::mem::take(&mut self.launches);
        for launch in launches.values_mut() {
            launch.at = self.put(&launch.table);
        }
        self.launches = launches;
    }

    pub(super) fn job<E>(&mut self, index: usize, job: &Job<'_>) -> Result<(), Error<E>> {
        if let Some((typed, rounds)) = orthogonal(job.rule) {
            return self.orthogonal(typed, rounds, job);
        }
        let compute = |arithmetic: Arithmetic| arithmetic.compute(job.param.dtype());
        match low(job.rule) {
            None => self.rule(index, job, job.rule, compute(job.arithmetic)),
            Some(low) if low.projection.projects() => self.projected(index, job, &low),
            Some(low) if low.single => {
                self.rule(index, job, low.inner, compute(Arithmetic::Single))
            }
            Some(low) => self.rule(index, job, low.inner, compute(job.arithmetic)),
        }
    }

    /// The constants of a step, as far as the host knows them: their bytes, and where they will be.
    pub(crate) fn constants<E>(
        &mut self,
        rule: &dyn AnyRule,
        compute: Dtype,
        step: &Step<'_>,
        scalars: &Scalars,
    ) -> Result<(&'static dyn Typed, Vec<u8>, u64), Error<E>> {
        let typed = typed(rule).ok_or_else(|| no_kernel(rule))?;
        let coefs = typed.coefs(rule, compute, step, scalars).ok_or_else(|| no_kernel(rule))?;
        let at = self.put(&coefs);
        // They are copied in words.
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        Ok((typed, coefs, at))
    }

    /// Notes numbers of a job's constants in the end.
    pub(crate) fn record(
        &mut self,
        index: usize,
        job: &Job<'_>,
        (typed, compute): (&'static dyn Typed, Dtype),
        (at, coefs): (u64, Vec<u8>),
        on_device: bool,
    ) {
        if !typed.records() {
            return;
        }
        let what = if !on_device {
            Noted::Finished(typed, compute, coefs)
        } else if let Some(kept) = job.kept.map(|kept| kept + KEPT_COEFS) {
            let words = coefs.len().div_ceil(8) as u64;
            let line = Move { items: words, main: at, plain: kept, ..Move::default() };
            self.each(phase::KEEP, "load_f64_f64".to_owned(), words, line);
            Noted::Constants(typed, compute, kept, coefs.len())
        } else {
            Noted::Constants(typed, compute, at, coefs.len())
        };
        self.records.push(Record { index, what });
    }

    fn rule<E>(
        &mut self,
        index: usize,
        job: &Job<'_>,
        rule: &dyn AnyRule,
        compute: Dtype,
    ) -> Result<(), Error<E>> {
        let len = job.shape.iter().product::<usize>() as u64;
        let (typed, mut coefs, at) = self.constants(rule, compute, &job.step, job.scalars)?;
        let sums = typed.needs_sums(rule).ok_or_else(|| no_kernel(rule))?;
        if sums && len == 0 {
            typed.finish_empty(compute, &mut coefs);
        }
        let sums = sums && len > 0;
        let layout = Layout::of(job.shape).filter(|_| typed.shape() == Shape::Matrix);
        let slots = job.slots.get(..typed.slots()).unwrap_or_default();
        let direct = match layout {
            None => direct(compute, &job.param, job.grad.0, slots),
            // A matrix rule has kernels for tensors of the type to compute in only.
            Some(_) => {
                direct(compute, &job.param, job.grad.0, slots).filter(|s| *s == name(compute))
            }
        };
        self.start(job, rule, len)?;
        let mut row = Row { len, coefs: at, ..Row::default() };
        let mut moves = Vec::new();
        if direct.is_some() {
            (row.param, row.grad, row.by) = (job.param.address(), job.grad.1, job.by.unwrap_or(0));
            for (to, slot) in row.slots.iter_mut().zip(slots) {
                *to = slot.map_or(0, |s| s.address());
            }
        } else {
            row.param = self.open(&mut moves, compute, &job.param, len, true)?;
            if layout.is_none() {
                row.grad = self.gradient(&mut moves, compute, job, len);
            }
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
            // The sums of its squares take gradients as they come.
            row.grad = self.gradient(&mut moves, compute, job, len);
            row.by = 0;
            self.matrix(&mut moves, typed, compute, layout, &job.slots, &mut row)?;
            prefix.push_str("_scaled");
        }
        if sums {
            let sums = self.sums(format!("{prefix}_sums_{suffix}"), compute, &row);
            let kernel = format!("{stem}_finish_{}", name(compute));
            self.add(phase::FINISH, kernel, Share::Block, [1, 1], Row { sums, ..row });
        }
        self.each(phase::APPLY, format!("{prefix}_apply_{suffix}"), len, Row { ..row });
        self.record(index, job, (typed, compute), (at, coefs), sums);
        self.moved(moves);
        Ok(())
    }

    /// Fills the slots that start as the parameter, if it is time.
    pub(crate) fn start<E>(
        &mut self,
        job: &Job<'_>,
        rule: &dyn AnyRule,
        len: u64,
    ) -> Result<(), Error<E>> {
        for (k, slot) in job.slots.iter().enumerate().filter(|_| job.starts) {
            if let Some(slot) = slot
                && rule.slot_start(k) == Start::Parameter
            {
                self.copy(&job.param, slot, len)?;
            }
        }
        Ok(())
    }

    /// Both sums over a tensor of at least one element.
    pub(crate) fn sums(&mut self, kernel: String, compute: Dtype, row: &Row) -> u64 {
        let (wide, blocks) = (wide(compute), row.len.div_ceil(CHUNK));
        let sums = self.room(2 * blocks, wide);
        self.add(phase::SUMS, kernel, Share::Warp, [blocks, row.len], Row { sums, ..*row });
        self.fold(phase::FOLD_SUMS, wide, 2, blocks, sums)
    }

    /// Adds the launches that move tensors.
    pub(crate) fn moved(&mut self, moves: Moves) {
        for (phase, kernel, items, line) in moves {
            self.each(phase, kernel, items, line);
        }
    }
}
