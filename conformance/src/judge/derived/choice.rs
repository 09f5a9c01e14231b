//! Takes both branches of comparisons that the error bounds leave undecided.
//!
//! A rule may select a value by a comparison ([`super::number`]). Where the compared values differ by less than
//! their error bounds, two correct implementations may decide differently. So the computation is repeated with
//! the other decision, and every outcome is accepted.

use std::cell::Cell;

/// The most open comparisons of one element that are decided both ways, which makes 2 to that power outcomes.
const MAX_OPEN: u32 = 3;

#[derive(Clone, Copy, Default)]
struct Choices {
    /// Open comparisons so far.
    open: u32,
    /// Which of them (as bits) are decided the other way.
    flipped: u32,
}

thread_local! {
    static CHOICES: Cell<Choices> = const { Cell::new(Choices { open: 0, flipped: 0 }) };
}

/// The result of a comparison, flipped if it is open and this run flips it.
pub(super) fn answer(natural: bool, is_open: impl FnOnce() -> bool) -> bool {
    if !is_open() {
        return natural;
    }
    CHOICES.with(|cell| {
        let choices = cell.get();
        cell.set(Choices { open: choices.open + 1, ..choices });
        natural ^ (choices.open < MAX_OPEN && choices.flipped >> choices.open & 1 == 1)
    })
}

/// Calls `compute` once for every combination of decisions, the natural ones first, and `outcome` on each result.
pub(super) fn each<T>(mut compute: impl FnMut() -> T, mut outcome: impl FnMut(T)) {
    let mut run = |flipped: u32| {
        CHOICES.set(Choices { open: 0, flipped });
        outcome(compute());
        CHOICES.get().open.min(MAX_OPEN)
    };
    let open = run(0);
    for flipped in 1..1u32 << open {
        run(flipped);
    }
    CHOICES.set(Choices::default());
}

#[cfg(test)]
mod tests {
    use super::super::number::Bounded;
    use super::*;
    use bitstep::float::ComputeFloat;

    fn signs(value: f32, error: f64) -> Vec<f32> {
        let mut all = Vec::new();
        each(|| Bounded { value, error }.sign().value, |sign| all.push(sign));
        all
    }

    #[test]
    fn only_open_comparisons_have_two_answers() {
        assert_eq!(signs(1.0, 0.1), [1.0]);
        assert_eq!(signs(0.0, 0.0), [0.0]);
        assert!(signs(0.1, 0.1).contains(&-1.0) && signs(0.1, 0.1)[0] == 1.0);
    }
}
