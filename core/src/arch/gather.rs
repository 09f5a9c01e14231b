//! Look-ups in tables of 256 floats.
//!
//! Processors that permute bytes (AVX-512 VBMI) keep such a table in registers, byte by byte, and look up 64 values at a
//! time. Others load each value from memory; the results are the same.
//!
//! As in `simd`, the only `unsafe` is the call of a function that is compiled for a wider unit.

/// A table of 256 floats.
pub(crate) struct Table {
    pub(crate) values: [f32; 256],
    /// The first, second, third and fourth bytes of all entries.
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    bytes: [[u8; 256]; 4],
}

impl Table {
    pub(crate) const fn new(values: [f32; 256]) -> Self {
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        let bytes = {
            let mut bytes = [[0; 256]; 4];
            let mut at = 0;
            while at < 256 {
                [bytes[0][at], bytes[1][at], bytes[2][at], bytes[3][at]] =
                    values[at].to_bits().to_le_bytes();
                at += 1;
            }
            bytes
        };
        Table {
            values,
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            bytes,
        }
    }

    /// Writes the entry at each index, times a scale, up to the length of the shorter slice.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) fn gather_scaled(&self, at: &[u8], scale: f32, found: &mut [f32]) {
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        let (at, found) = if std::is_x86_feature_detected!("avx512vbmi") {
            let most = at.len().min(found.len()) / 64 * 64;
            let ((these, at), (those, found)) = (at.split_at(most), found.split_at_mut(most));
            let (these, those) = (these.as_chunks().0, those.as_chunks_mut().0);
            // SAFETY: the feature that `permute` is compiled for was detected just above.
            unsafe { avx512::permute(&self.bytes, these, scale, those) };
            (at, found)
        } else {
            (at, found)
        };
        for (x, &at) in found.iter_mut().zip(at) {
            *x = self.values[usize::from(at)] * scale;
        }
    }
}

#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod avx512 {
    use core::arch::x86_64::*;

    /// The entries at 64 indices at a time, times a scale. The unpack instructions that combine bytes to floats work on
    /// each 128-bit quarter of a register separately, so the indices are distributed to the quarters first.
    #[target_feature(enable = "avx512vbmi")]
    pub(super) fn permute(
        bytes: &[[u8; 256]; 4],
        at: &[[u8; 64]],
        scale: f32,
        found: &mut [[f32; 64]],
    ) {
        let scale = _mm512_set1_ps(scale);
        let deal = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let [first, second, third, fourth] = bytes;
        for (at, found) in at.iter().zip(found) {
            let at = _mm512_permutexvar_epi32(deal, load(at));
            let [a, b] = [byte(first, at), byte(second, at)];
            let [c, d] = [byte(third, at), byte(fourth, at)];
            let [ab, cd] = [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)];
            let [ef, gh] = [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)];
            let values = [
                _mm512_unpacklo_epi16(ab, cd),
                _mm512_unpackhi_epi16(ab, cd),
                _mm512_unpacklo_epi16(ef, gh),
                _mm512_unpackhi_epi16(ef, gh),
            ];
            for (to, from) in found.as_chunks_mut().0.iter_mut().zip(values) {
                let number = _mm512_mul_ps(_mm512_castsi512_ps(from), scale);
                store(to, _mm512_castps_si512(number));
            }
        }
    }

    /// One of the four bytes of 64 entries.
    #[inline]
    #[target_feature(enable = "avx512vbmi")]
    fn byte(table: &[u8; 256], at: __m512i) -> __m512i {
        let [t0, t1, t2, t3] = table.as_chunks().0 else { return at }; // there are four
        let low = _mm512_permutex2var_epi8(load(t0), at, load(t1));
        let high = _mm512_permutex2var_epi8(load(t2), at, load(t3));
        _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), low, high)
    }

    // `load` and `store` compile to one instruction each.

    #[inline]
    #[target_feature(enable = "avx512vbmi")]
    fn load(bytes: &[u8; 64]) -> __m512i {
        let mut words = [0; 8];
        for (word, &bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = i64::from_le_bytes(bytes);
        }
        let [a, b, c, d, e, f, g, h] = words;
        _mm512_setr_epi64(a, b, c, d, e, f, g, h)
    }

    #[inline]
    #[target_feature(enable = "avx512vbmi")]
    fn store(to: &mut [f32; 16], from: __m512i) {
        let [a, b] = [_mm512_extracti64x4_epi64::<0>(from), _mm512_extracti64x4_epi64::<1>(from)];
        let words = [
            _mm256_extract_epi64::<0>(a),
            _mm256_extract_epi64::<1>(a),
            _mm256_extract_epi64::<2>(a),
            _mm256_extract_epi64::<3>(a),
            _mm256_extract_epi64::<0>(b),
            _mm256_extract_epi64::<1>(b),
            _mm256_extract_epi64::<2>(b),
            _mm256_extract_epi64::<3>(b),
        ];
        for (pair, word) in to.as_chunks_mut().0.iter_mut().zip(words) {
            *pair = [f32::from_bits(word as u32), f32::from_bits((word >> 32) as u32)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_found_at_its_place_whatever_the_length() {
        // Entries that differ in every byte.
        let values = core::array::from_fn(|k| {
            f32::from_bits((k as u32).wrapping_mul(0x0101_3f07) & 0xbfff_ffff)
        });
        let table = Table::new(values);
        let at: [u8; 300] = core::array::from_fn(|k| (k * 37 % 256) as u8);
        for len in [0, 1, 63, 64, 65, 128, 255, 256, 300] {
            let scale = if len % 2 == 0 { 1.0 } else { 0.3 };
            let mut found = [1.0; 300];
            table.gather_scaled(&at[..len], scale, &mut found);
            for (k, x) in found.iter().enumerate() {
                let expected = if k < len { values[usize::from(at[k])] * scale } else { 1.0 };
                assert_eq!(x.to_bits(), expected.to_bits(), "{k} of {len}");
            }
        }
    }
}
