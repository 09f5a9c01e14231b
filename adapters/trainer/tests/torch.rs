//! Files of `torch.save`: written by PyTorch, and malformed ones.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use bitstep_trainer::resume::State;
use bitstep_trainer::torch::{self, Dtype, TorchError, Value, parse, read, unpickle};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/torch").join(name)
}

/// Reads a pickle of protocol 2, with an 8 MiB storage for any key.
fn run(operations: &[u8]) -> Result<Value, TorchError> {
    let pickle = [b"\x80\x02", operations, b"."].concat();
    unpickle(&pickle, 0, &mut |_| Ok(vec![0; 8 << 20]))
}

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        zip.start_file(format!("saved/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The operations that build a one-dimensional tensor.
fn tensor(key: &str, count: u32, offset: u16, len: u16, stride: u8) -> Vec<u8> {
    let mut ops =
        b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU".to_vec();
    ops.push(key.len() as u8);
    ops.extend(key.as_bytes());
    ops.extend(b"U\x03cpuJ");
    ops.extend(count.to_le_bytes());
    ops.extend(b"tQM");
    ops.extend(offset.to_le_bytes());
    ops.push(b'M');
    ops.extend(len.to_le_bytes());
    ops.extend([0x85, b'K', stride, 0x85, 0x89]);
    ops.extend(b"ccollections\nOrderedDict\n)RtR");
    ops
}

fn get<'a>(value: &'a Value, key: &str) -> &'a Value {
    let Value::Dict(entries) = value else { panic!("{value:?}") };
    let found = entries.iter().find(|(k, _)| matches!(k, Value::Str(k) if k == key));
    &found.unwrap_or_else(|| panic!("no {key}")).1
}

#[test]
fn files_of_pytorch_have_the_values_that_were_saved() {
    let saved = read(&fixture("values.pt")).unwrap();
    let shown = |key: &str| format!("{:?}", get(&saved, key));
    for (key, want) in [
        ("none", "None"),
        ("true", "Bool(true)"),
        ("byte", "Int(200)"),
        ("long", "Int(1099511627776)"),
        ("least", "Int(-9223372036854775808)"),
        ("wide", "Opaque(\"a whole number of more than 64 bits\")"),
        ("float", "Float(0.1)"),
        ("text", "Str(\"é\")"),
        ("bytes", "Bytes([0, 255])"),
        ("tuple", "List([Int(1), List([Int(2)])])"),
        ("set", "List([Int(7)])"),
        ("ordered", "Dict([(Str(\"b\"), Int(2)), (Str(\"a\"), Int(1))])"),
        ("default", "Dict([(Int(3), Dict([]))])"),
        ("size", "List([Int(1), Int(2)])"),
        ("numpy_f64", "Float(0.1)"),
        ("numpy_f32", "Float(2.5)"),
        ("numpy_f16", "Float(0.5)"),
        ("numpy_i64", "Int(-7)"),
        ("numpy_u8", "Int(250)"),
        ("numpy_bool", "Bool(true)"),
        ("device", "Opaque(\"torch.device\")"),
        ("dtype", "Opaque(\"torch.float32\")"),
        ("array", "Opaque(\"numpy._core.multiarray._reconstruct\")"),
        ("sparse", "Opaque(\"torch._utils._rebuild_sparse_tensor\")"),
        ("complex", "Opaque(\"torch._utils._rebuild_tensor_v2\")"),
    ] {
        assert_eq!(shown(key), want, "{key}");
    }
    let numbers = |key: &str| {
        let Value::Tensor(tensor) = get(&saved, key) else { panic!("{key}: {}", shown(key)) };
        (tensor.dtype(), tensor.shape().to_vec(), tensor.to_f64())
    };
    for (key, dtype) in [
        ("f64", Dtype::F64),
        ("f32", Dtype::F32),
        ("f16", Dtype::F16),
        ("bf16", Dtype::BF16),
        ("i64", Dtype::I64),
        ("i32", Dtype::I32),
        ("i16", Dtype::I16),
        ("i8", Dtype::I8),
        ("u8", Dtype::U8),
        ("u16", Dtype::U16),
    ] {
        assert_eq!(numbers(key), (dtype, vec![3], Some(vec![0.0, 1.0, 2.0])), "{key}");
    }
    assert_eq!(numbers("bool"), (Dtype::BOOL, vec![2], Some(vec![1.0, 0.0])));
    assert_eq!(numbers("parameter"), (Dtype::F32, vec![2], Some(vec![1.0, 1.0])));
    assert_eq!(numbers("scalar"), (Dtype::F32, vec![], Some(vec![5.0])));
    assert_eq!(numbers("empty"), (Dtype::F32, vec![0, 4], Some(vec![])));
    let transposed = vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0];
    assert_eq!(numbers("transposed"), (Dtype::F32, vec![3, 2], Some(transposed)));
    assert_eq!(numbers("part"), (Dtype::F32, vec![2], Some(vec![2.0, 3.0])));
    assert_eq!(numbers("expanded"), (Dtype::F32, vec![3], Some(vec![9.0; 3])));
    let Value::Tensor(eighth) = get(&saved, "f8") else { panic!("{}", shown("f8")) };
    assert_eq!((eighth.dtype(), eighth.to_f64()), (Dtype::F8_E4M3, None));
    assert_eq!(eighth.bytes(), [0x38, 0x38]); // 1.0 twice
}

#[test]
fn the_old_format_is_an_error_that_says_how_to_convert_it() {
    let error = read(&fixture("old.pt")).unwrap_err();
    assert!(matches!(error, TorchError::OldFormat), "{error}");
    assert!(error.to_string().contains("torch.save(torch.load("), "{error}");
    let error = parse(b"something else").unwrap_err();
    assert!(matches!(error, TorchError::Archive(_)), "{error}");
}

#[test]
fn nothing_is_called_and_what_is_unknown_keeps_its_name_only() {
    let value = run(b"cposix\nsystem\nX\x06\x00\x00\x00touch x\x85R");
    assert!(value.is_err()); // a string longer than declared
    let value = run(b"cposix\nsystem\nX\x07\x00\x00\x00touch x\x85R").unwrap();
    assert!(matches!(&value, Value::Opaque(name) if name == "posix.system"), "{value:?}");
    // A state that needs it is refused.
    let error = State::try_from(value).unwrap_err();
    assert!(matches!(error, TorchError::Content { .. }), "{error}");
}

#[test]
fn long_integers_of_any_length_are_right_or_said_to_be_wide() {
    for len in 0..=16usize {
        for seed in 0..200u64 {
            let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(seed as u32);
            let fill = [0x00, 0xff, 0x80, 0x7f][seed as usize % 4];
            let mut bytes = vec![fill; len];
            let some = (seed as usize / 4 % 9).min(len);
            bytes[..some].copy_from_slice(&random.to_le_bytes()[..some]);
            let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
            let mut word = [sign; 16];
            word[..len].copy_from_slice(&bytes);
            let want = i128::from_le_bytes(word);
            let got = run(&[&[0x8a, len as u8], &bytes[..]].concat()).unwrap();
            match i64::try_from(want) {
                Ok(want) => assert!(matches!(got, Value::Int(got) if got == want), "{bytes:?}"),
                Err(_) => assert!(matches!(got, Value::Opaque(_)), "{bytes:?}: {got:?}"),
            }
        }
    }
}

#[test]
fn many_views_read_their_storage_once() {
    let mut ops = b"(".to_vec();
    for i in 0..2000u16 {
        ops.extend(tensor("7", 4000, 2 * i, 2, 1));
    }
    ops.push(b'l');
    let pickle = [b"\x80\x02", &ops[..], b"."].concat();
    let mut reads = Vec::new();
    let value = unpickle(&pickle, 0, &mut |key| {
        reads.push(key.to_owned());
        Ok((0..4000).flat_map(|i| (i as f32).to_le_bytes()).collect())
    });
    let Value::List(views) = value.unwrap() else { panic!("a list") };
    assert_eq!(reads, ["7"]);
    let Value::Tensor(last) = &views[1999] else { panic!("a tensor") };
    assert_eq!(last.to_f64().unwrap(), [3998.0, 3999.0]);
}

#[test]
fn a_tensor_beyond_its_storage_is_refused() {
    let of = |count, bytes: usize, offset, len, stride| {
        let pickle = [b"\x80\x02", &tensor("0", count, offset, len, stride)[..], b"."].concat();
        unpickle(&pickle, 0, &mut |_| Ok(vec![0; bytes])).map(drop)
    };
    of(4, 16, 0, 4, 1).unwrap();
    of(4, 16, 3, 1, 255).unwrap();
    of(4, 16, 1, 2, 2).unwrap();
    of(4, 16, 60000, 0, 1).unwrap();
    for (count, bytes, offset, len, stride) in
        [(4, 16, 1, 4, 1), (4, 16, 4, 1, 1), (4, 16, 1, 2, 3), (4, 12, 0, 3, 1), (3, 16, 0, 3, 1)]
    {
        let error = of(count, bytes, offset, len, stride).unwrap_err();
        assert!(matches!(error, TorchError::Tensor(_)), "{error}");
    }
}

/// The declared lengths of an archive's entries are checked against the actual ones.
#[test]
fn an_entry_of_a_declared_length_that_is_not_there_is_refused() {
    let storage = 1.0f32.to_le_bytes();
    let pickle = [b"\x80\x02", &tensor("0", 1, 0, 1, 1)[..], b"."].concat();
    let whole = archive(&[("data.pkl", &pickle), ("data/0", &storage), ("version", b"3")]);
    assert!(matches!(parse(&whole), Ok(Value::Tensor(_))));
    let central = whole.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let at = central + whole[central..].windows(6).position(|w| w == b"data/0").unwrap();
    // Compressed and uncompressed length are 26 and 22 bytes before the name, which starts with
    // "saved/", another 6 bytes.
    for size in [5u32, 1 << 20, u32::MAX - 1] {
        let mut file = whole.clone();
        for field in [at - 6 - 26, at - 6 - 22] {
            assert_eq!(file[field..field + 4], 4u32.to_le_bytes());
            file[field..field + 4].copy_from_slice(&size.to_le_bytes());
        }
        let error = parse(&file).unwrap_err();
        assert!(matches!(error, TorchError::Archive(_)), "{error}");
    }
    let mut file = whole.clone();
    let last = file.windows(4).position(|w| w == storage).unwrap();
    file[last] ^= 1; // the checksum no longer matches
    assert!(matches!(parse(&file), Err(TorchError::Archive(_))));
    assert!(matches!(parse(&whole[..whole.len() / 2]), Err(TorchError::Archive(_))));
}

/// Small files that would need a lot of memory or time, each refused by this limit.
fn bombs() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let nested = |depth: usize| [b"N".to_vec(), vec![0x85; depth]].concat();
    let mut doubled = b"Xd\x00\x00\x00".to_vec();
    doubled.extend([b'x'; 100]);
    for i in 0..64u8 {
        doubled.extend([b'q', i, b'h', i, 0x86]); // (x, x) of the previous value
    }
    let mut lists = b"]".to_vec();
    for i in 0..60u8 {
        lists.extend([b'q', i, b']', b'h', i, b'a', b'h', i, b'a']);
    }
    let long = vec![b'y'; 1 << 20];
    let mut strings =
        [&b"X\x00\x00\x10\x00"[..], &long, b"q\x00(", &b"h\x00".repeat(5000)].concat();
    strings.push(b'l');
    let mut views = b"(".to_vec();
    let whole = tensor("0", 2 << 20, 0, u16::MAX, 32);
    views.extend(whole.repeat(2000));
    views.push(b'l');
    let huge = |op: u8, len: &[u8]| [&[op], len, b"abc"].concat();
    let four = (4u64 << 30).to_le_bytes();
    let mut keys = b"}(U\x05stateU\x01xU\x0cparam_groups](}(U\x06params](K\x00e".to_vec();
    for i in 0..200_000u32 {
        keys.extend([b'X', 4, 0, 0, 0]);
        keys.extend(i.to_le_bytes().map(|b| b'a' + (b & 15)));
        keys.push(b'N');
    }
    keys.extend(b"ueu");
    vec![
        ("600 tuples in one another", nested(600), "levels of nesting"),
        ("a million tuples in one another", nested(1_000_000), "levels of nesting"),
        ("a list in itself", b"]q\x00h\x00a".to_vec(), "levels of nesting"),
        ("a parameter of itself", parameter_of_itself(), "levels of nesting"),
        ("a number of a number of a number", numbers_of_numbers(), "numpy._core"),
        ("tuples of the same twice", doubled, "objects"),
        ("lists of the same twice", lists, "objects"),
        ("one string often", strings, "bytes of strings"),
        ("one storage often", views, "bytes of tensors"),
        ("5 million objects", b"N".repeat(5_000_000), "objects"),
        ("20 million operations", [b"N".to_vec(), b"20".repeat(10_000_000)].concat(), "operations"),
        ("kept far away", b"Nr\xff\xff\xff\xff".to_vec(), "objects"),
        ("a string of 4 GiB", huge(0x8d, &four), "bytes wanted"),
        ("bytes of 4 GiB", huge(0x8e, &four), "bytes wanted"),
        ("an array of 4 GiB", huge(0x96, &four), "bytes wanted"),
        ("a string of 2⁶⁴ bytes", huge(0x8d, &[0xff; 8]), "bytes wanted"),
        ("a string of 4 GiB, short", huge(b'X', &[0xff; 4]), "bytes wanted"),
        ("an integer of 4 GiB", huge(0x8b, &[0xff; 4]), "bytes wanted"),
        ("a group of 200,000 keys", keys, "keys of a group"),
    ]
}

/// `_rebuild_parameter(x)` whose x is itself, through its list of arguments.
fn parameter_of_itself() -> Vec<u8> {
    b"]q\x00ctorch._utils\n_rebuild_parameter\nh\x00Rq\x010h\x00h\x01a0h\x01".to_vec()
}

/// `scalar(dtype, scalar(dtype, …))`, a hundred thousand times.
fn numbers_of_numbers() -> Vec<u8> {
    let mut ops =
        b"cnumpy\ndtype\nU\x02f8\x85Rq\x00cnumpy._core.multiarray\nscalar\nq\x02Nq\x01".to_vec();
    ops.extend(b"h\x02h\x00h\x01\x86Rq\x01".repeat(100_000));
    ops
}

const CHILD: &str = "BITSTEP_TEST_BOMBS";

/// The child process of the next test, which has its own memory limit.
#[cfg(target_os = "linux")]
#[test]
fn child_that_reads_bombs() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let limit = Some(1 << 30);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
    for (name, ops, expected) in bombs() {
        let error = run(&ops).and_then(State::try_from).map(drop).expect_err(name);
        assert!(error.to_string().contains(expected), "{name}: {error}");
        let pickle = [b"\x80\x02", &ops[..], b"."].concat();
        let error = parse(&archive(&[("data.pkl", &pickle)])).and_then(State::try_from);
        assert!(error.is_err(), "{name}");
    }
    println!("all read");
}

#[cfg(target_os = "linux")]
#[test]
fn small_files_that_ask_for_much_are_refused_within_a_gigabyte() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["child_that_reads_bombs", "--exact", "--nocapture"])
        .env(CHILD, "")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("all read"), "{text}{errors}");
}

#[test]
fn a_state_of_ten_thousand_parameters_is_read() {
    let mut ops = b"}(X\x05\x00\x00\x00state}(".to_vec();
    for i in 0..10_000u16 {
        ops.push(b'M');
        ops.extend(i.to_le_bytes());
        ops.extend(b"}(U\x04stepG?\xf0\x00\x00\x00\x00\x00\x00U\x07exp_avg");
        ops.extend(tensor(&i.to_string(), 2, 0, 2, 1));
        ops.extend(b"u");
    }
    ops.extend(b"uU\x0cparam_groups](}(U\x02lrG?\xb9\x99\x99\x99\x99\x99\x9aU\x06params](");
    for i in 0..10_000u16 {
        ops.push(b'M');
        ops.extend(i.to_le_bytes());
    }
    ops.extend(b"eueu");
    let pickle = [b"\x80\x02", &ops[..], b"."].concat();
    let value = unpickle(&pickle, 0, &mut |_| Ok([1.0f32, 2.0].map(f32::to_le_bytes).concat()));
    let state = State::try_from(value.unwrap()).unwrap();
    assert_eq!(state.groups.len(), 1);
    assert_eq!(state.groups[0].0, 10_000);
    assert_eq!(state.groups[0].1.get("lr").and_then(|lr| lr.as_f64()), Some(0.1));
    assert_eq!(state.params.len(), 10_000);
    assert!(state.params.iter().all(|p| p["step"] == [1.0] && p["exp_avg"] == [1.0, 2.0]));
}

#[test]
fn a_rate_that_is_numpys_is_a_number() {
    let state = torch::optimizer(fixture("numpy_rate.pt")).unwrap();
    assert_eq!(state.groups[0].1.get("lr").and_then(|lr| lr.as_f64()), Some(0.001));
    let schedule = torch::scheduler(fixture("numpy_schedule.pt")).unwrap();
    let lrs = schedule.get("_last_lr").and_then(|lrs| lrs.as_list()).unwrap();
    assert_eq!(lrs.iter().map(|lr| lr.as_f64()).collect::<Vec<_>>(), [Some(0.001)]);
}
