//! The dynamic maps: numbers in [−1, 1] that codes stand for.
//!
//! Each decade below 1 has twice as many numbers as the one beneath it, evenly
//! spread: the midpoints of equal parts of [0.1, 1], times a power of ten. With 0
//! and 1, and with the negatives in a signed map, that makes 2^bits numbers, in order.

/// `torch.linspace(0.1, 1, n)[k]`: from the nearer end, rounded once.
const fn linspace(n: usize, k: usize) -> f32 {
    let (start, end) = (0.1f32, 1.0f32);
    let step = (end - start) / (n - 1) as f32;
    // The product is exact in f64, as it is inside of a fused multiply-add.
    if k < n / 2 {
        (start as f64 + step as f64 * k as f64) as f32
    } else {
        (end as f64 - step as f64 * (n - 1 - k) as f64) as f32
    }
}

/// The map of N codes with this many decades.
const fn dynamic<const N: usize>(signed: bool, decades: usize) -> [f32; N] {
    const TENS: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let mut map = [0.0f32; N];
    let mut at = if signed { N / 2 - 1 } else { 0 }; // where 0 stands
    let zero = at;
    let mut decade = 0;
    while decade < decades {
        let parts = if signed { 1 << decade } else { 2 << decade };
        let mut k = 0;
        while k < parts {
            let mean = (linspace(parts + 1, k) + linspace(parts + 1, k + 1)) / 2.0;
            at += 1;
            map[at] = TENS[7 - decades + decade] * mean;
            if signed {
                map[2 * zero - at] = -map[at];
            }
            k += 1;
        }
        decade += 1;
    }
    map[N - 1] = 1.0;
    map
}

pub(crate) static SIGNED_8: [f32; 256] = dynamic(true, 7);
pub(crate) static UNSIGNED_8: [f32; 256] = dynamic(false, 7);
pub(crate) static SIGNED_4: [f32; 16] = dynamic(true, 3);
/// Not dynamic: sixteenths, without 0.
pub(crate) static UNSIGNED_4: [f32; 16] = {
    let mut map = [0.0; 16];
    let mut k = 0;
    while k < 16 {
        map[k] = (k + 1) as f32 / 16.0;
        k += 1;
    }
    map
};

/// The last code whose number is at most x; 0 if there is none, or for NaN.
/// N is a power of two. As many steps for every x, none of them a branch.
#[inline(always)]
pub(crate) fn floor<const N: usize>(map: &[f32; N], x: f32) -> usize {
    let (mut code, mut half) = (0, N / 2);
    while half > 0 {
        code += if x >= map[(code + half) % N] { half } else { 0 };
        half /= 2;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_is_in_order_and_holds_zero_and_one() {
        for map in [&SIGNED_8, &UNSIGNED_8] {
            assert!(map.is_sorted() && map.windows(2).all(|w| w[0] < w[1]));
            assert!(map.contains(&0.0) && map[255] == 1.0);
        }
        assert!(SIGNED_4.is_sorted() && SIGNED_4[15] == 1.0 && SIGNED_4[7] == 0.0);
        // One number in the lowest decade, the mean of 0.1 and 1, times 1e-6.
        assert_eq!(SIGNED_8[128], 0.55 * 1e-6);
        assert_eq!(SIGNED_8[126], -SIGNED_8[128]);
    }

    #[test]
    fn floor_finds_every_number_itself_and_the_one_below() {
        for (k, &x) in SIGNED_8.iter().enumerate() {
            assert_eq!(floor(&SIGNED_8, x), k);
            assert_eq!(floor(&SIGNED_8, x.next_down()), k.saturating_sub(1));
        }
        assert_eq!(floor(&UNSIGNED_4, f32::NAN), 0);
        assert_eq!(floor(&UNSIGNED_4, 0.0), 0);
    }
}
