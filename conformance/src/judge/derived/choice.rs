//! Comparisons that the bounds leave open are answered both ways.
//!
//! A rule may take one of two numbers by a comparison of others ([`super::number`]). Where these are nearer
//! to each other than they may be off, two correct implementations may take different ones. So the
//! computation is made again with the other answer, and every outcome is right.

use std::cell::Cell;

/// So many open comparisons of one element are answered both ways, which makes 2 to that power outcomes.
const MAX_OPEN: u32 = 3;

#[derive(Clone, Copy, Default)]
struct Choices {
    /// Open comparisons so far.
    open: u32,
    /// Which of them (as bits) are answered the other way.
    flipped: u32,
}

thread_local! {
    static CHOICES: Cell<Choices> = const { Cell::new(Choices { open: 0, flipped: 0 }) };
}

/// The answer of a comparison, or the other one.
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

/// Hands over what `compute` gives with every answer to its open comparisons, the natural ones first.
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
