//! The fuzz target `codecs`.

use arbitrary::Unstructured;
use bitstep::storage::{EncodedBuffer, Storage};

use crate::input::{FORMATS, number};

/// A storage of arbitrary bytes: it decodes without a panic, and values that are written decode to the same bits
/// after its raw parts were saved and restored.
///
/// # Panics
/// If it does not.
pub fn codecs(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(format) = u.choose(&FORMATS[1..]).copied() else { return };
    let len = u.int_in_range(0..=300).unwrap_or(0);
    let mut coded = EncodedBuffer::zeros(format, len).expect("a format that exists");
    if u.arbitrary().unwrap_or(false) {
        for mut part in coded.parts("slot") {
            part.bytes.fill_with(|| u.arbitrary().unwrap_or(0));
            coded.set_part("slot", &part).expect("a part of its own");
        }
    }
    let read = |coded: &EncodedBuffer| {
        let mut values = vec![0.0; len];
        coded.load(0, &mut values);
        values
    };
    read(&coded);
    let values: Vec<f32> = (0..len).map(|_| number(&mut u).unwrap_or(0.0) as f32).collect();
    coded.store(0, &values);
    let after = read(&coded);
    let mut copy = EncodedBuffer::zeros(format, len).expect("a format that exists");
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
