//! Every way in which state may rest in memory.

use arbitrary::Unstructured;
use bitstep::real::Dtype;
use bitstep::storage::{Coded, Companded, Dynamic, Format, Fp8, Scaled4, Scaled8, Storage};

use crate::input::number;

/// One of each kind of storage, in each of its variants.
pub const FORMATS: [Format; 14] = [
    Format::Plain(Dtype::F32),
    Format::Companded(Companded::Momentum),
    Format::Companded(Companded::Variance),
    Format::Dynamic(Dynamic { signed: true, grid: false }),
    Format::Dynamic(Dynamic { signed: false, grid: true }),
    Format::Scaled8(Scaled8 { signed: true, block: 64 }),
    Format::Scaled8(Scaled8 { signed: false, block: 100 }),
    Format::Scaled4(Scaled4 { signed: true, block: 128 }),
    Format::Scaled4(Scaled4 { signed: false, block: 128 }),
    Format::Fp8(Fp8 { block: 512 }),
    Format::Split(Dtype::Bf16, 8),
    Format::Split(Dtype::F16, 16),
    Format::Kahan(Dtype::Bf16),
    Format::Kahan(Dtype::F16),
];

/// A storage made of any bytes: whatever stands in it reads back without a panic, and what is
/// written reads the same after its raw parts went through a checkpoint.
///
/// # Panics
/// If it does not.
pub fn codecs(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(format) = u.choose(&FORMATS[1..]).copied() else { return };
    let len = u.int_in_range(0..=300).unwrap_or(0);
    let mut coded = Coded::zeros(format, len).expect("a format that exists");
    if u.arbitrary().unwrap_or(false) {
        for mut part in coded.parts("slot") {
            part.bytes.fill_with(|| u.arbitrary().unwrap_or(0));
            coded.set_part("slot", &part).expect("a part of its own");
        }
    }
    let read = |coded: &Coded| {
        let mut values = vec![0.0; len];
        coded.load(0, &mut values);
        values
    };
    read(&coded);
    let values: Vec<f32> = (0..len).map(|_| number(&mut u).unwrap_or(0.0) as f32).collect();
    coded.store(0, &values);
    let after = read(&coded);
    let mut copy = Coded::zeros(format, len).expect("a format that exists");
    for part in coded.parts("slot") {
        copy.set_part("slot", &part).expect("a part of its own");
        let mut short = part.clone();
        short.bytes.push(0);
        assert!(copy.set_part("slot", &short).is_err());
    }
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read(&copy)), bits(&after));
    coded.zero();
    assert!(read(&coded).iter().all(|&x| x == 0.0));
}
