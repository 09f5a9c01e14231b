//! Properties of storage formats, and storages in the caller's memory.

use bitstep::float::Dtype;
use bitstep::storage::{
    BlockQuant4, BlockQuant8, BlockQuantized, Companded, Data, DataMut, EncodedBuffer, RawBuffer,
    RawDtype, RoundingBits, SplitFloat, StochasticRounded, Storage, StorageFormat,
};
use half::{bf16, f16};

#[test]
fn empty_is_what_has_no_elements() {
    let (mut none, mut one) = ([0f32; 0], [0f32; 1]);
    let empty =
        EncodedBuffer::zeros(StorageFormat::Companded(Companded::Momentum), 0).expect("a format");
    assert!(Storage::is_empty(&empty));
    assert!(Data::F32(&none).is_empty() && !Data::F32(&one).is_empty());
    assert!(DataMut::F32(&mut none).is_empty() && !DataMut::F32(&mut one).is_empty());
    let [none, one] = [0, 1].map(|len| RawBuffer::zeros(RawDtype::I8, len).expect("memory"));
    assert!(none.is_empty() && !one.is_empty());
}

#[test]
fn format_knows_its_block_and_its_bytes() {
    let eight = StorageFormat::BlockQuant8(BlockQuant8 { signed: true, block: 16 });
    let four = StorageFormat::BlockQuant4(BlockQuant4 { signed: false, block: 16 });
    let companded = StorageFormat::Companded(Companded::Momentum);
    // Codes, then one scale per block, the last of which may be partial: f32, f32 and f16.
    for (format, block, bytes) in [
        (eight, 16, 33 + 3 * 4),
        (four, 16, 17 + 3 * 4),
        (companded, 32, 33 + 2 * 2),
        (StorageFormat::SplitFloat(Dtype::Bf16, 8), 1, 33 * 3),
        (StorageFormat::KahanPair(Dtype::F16), 1, 33 * 4),
    ] {
        assert_eq!(format.bytes(33), bytes, "{format:?}");
        let encoded = EncodedBuffer::zeros(format, 33).expect("a format");
        assert_eq!((encoded.block(), encoded.len()), (block, 33), "{format:?}");
    }
    assert_eq!(StorageFormat::Plain(Dtype::F64).bytes(3), 24);
    // Only 16-bit values are split or compensated.
    for wide in [Dtype::F32, Dtype::F64] {
        for format in [
            StorageFormat::SplitFloat(wide, 8),
            StorageFormat::SplitFloat(wide, 16),
            StorageFormat::KahanPair(wide),
        ] {
            assert!(
                format.layout(33).is_none() && EncodedBuffer::zeros(format, 33).is_err(),
                "{format:?}"
            );
        }
    }
}

#[test]
fn blocks_in_memory_of_the_callers_are_written_read_and_cleared() {
    let (mut codes, mut scales) = ([0u8; 40], [f16::ZERO; 2]);
    let mut blocks =
        BlockQuantized::new(Companded::Momentum, 40, &mut codes, &mut scales).expect("lengths");
    assert_eq!((blocks.len(), blocks.block(), blocks.is_empty()), (40, 32, false));
    blocks.store(0, &[0.5; 40]);
    blocks.store(32, &[2.0; 8]);
    let mut back = [9.0; 40];
    blocks.load(0, &mut back);
    assert_eq!((back[0], back[31], back[32], back[39]), (0.5, 0.5, 2.0, 2.0));
    // Loads and stores beyond the end do nothing.
    let mut beyond = [9.0; 2];
    blocks.load(64, &mut beyond);
    blocks.store(64, &[7.0; 2]);
    assert_eq!(beyond, [9.0; 2]);
    blocks.zero();
    blocks.load(0, &mut back);
    assert_eq!(back, [0.0; 40]);
    assert_eq!((codes, scales), ([0; 40], [f16::ZERO; 2]));
}

#[test]
fn split_numbers_are_cleared_with_their_corrections() {
    let (mut narrow, mut error) = ([bf16::ONE; 3], [5i8; 3]);
    let mut split = SplitFloat::new(&mut narrow, &mut error).expect("lengths");
    split.zero();
    assert_eq!((narrow, error), ([bf16::ZERO; 3], [0; 3]));
}

#[test]
fn dithered_numbers_take_each_their_own_noise() {
    // 1 + ¼ ULP rounds up for a quarter of all rounding bits.
    let x = 1.0 + 0.25 / 128.0;
    let rounding_bits = [0, 0xffff, 0x3fff, 0x4000, 0];
    let mut values = [bf16::ZERO; 5];
    let mut rounded = StochasticRounded::new(&mut values, RoundingBits::Provided(&rounding_bits));
    rounded.store(0, &[x; 2]);
    rounded.store(2, &[x; 3]);
    let mut read = [0.0; 5];
    rounded.load(0, &mut read);
    let (up, down) = (1.0 + 1.0 / 128.0, 1.0);
    assert_eq!(read, [up, down, up, down, up]);
    rounded.zero();
    assert_eq!(values, [bf16::ZERO; 5]);
}
