//! Untrusted pickles: each gives an error or plain values within the limits.

use arbitrary::{Result, Unstructured};
use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::optimizer::Optimizer;
use bitstep::registry;
use bitstep_trainer::resume::{self, State};
use bitstep_trainer::torch::{DEPTH, OBJECTS, PICKLE, SHARED, TorchError, Value, parse, unpickle};

/// The first bytes of an input of the target `resumed` that is a pickle, a zip archive, or bytes to generate a
/// pickle from.
const PROTOCOL: u8 = 0x80;
const ARCHIVE: &[u8] = b"PK";
const MADE: u8 = 0x81;

/// Reads data of these kinds; false if it is of none.
pub(crate) fn pickles(data: &[u8]) -> bool {
    match data {
        [PROTOCOL, ..] => read(unpickle(data, 0, &mut storage)),
        [MADE, rest @ ..] => {
            let made = pickle(&mut Unstructured::new(rest)).unwrap_or_default();
            read(unpickle(&made, 0, &mut storage));
        }
        data if data.starts_with(ARCHIVE) => read(parse(data)),
        _ => return false,
    }
    true
}

/// A storage whose length is its key.
fn storage(key: &str) -> std::result::Result<Vec<u8>, TorchError> {
    let wrong = || TorchError::Tensor(format!("no storage `{key}`"));
    let len = key.parse::<u8>().map_err(|_| wrong())?;
    Ok((0..len).collect())
}

fn read(value: std::result::Result<Value, TorchError>) {
    let Ok(value) = value else { return };
    let mut sizes = [0; 3];
    measure(&value, 0, &mut sizes);
    let [objects, text, tensors] = sizes;
    assert!(objects <= OBJECTS && text <= PICKLE && tensors <= SHARED, "{sizes:?}");
    let Ok(state) = State::try_from(value) else { return };
    let mut optimizer = Optimizer::empty();
    let spec = registry::optimizer("adamw_torch", Args::new()).expect("defaults are valid");
    let group = optimizer.add_group(spec).expect("a valid spec");
    optimizer.add_param_to(group, &[3], Dtype::F32).expect("a group that exists");
    let before = format!("{optimizer:?}");
    if resume::optimizer(&mut optimizer, &[0], &state).is_err() {
        assert_eq!(format!("{optimizer:?}"), before);
    }
}

/// Counts objects, bytes of strings and bytes of tensors.
fn measure(value: &Value, depth: u32, sizes: &mut [u64; 3]) {
    assert!(depth <= DEPTH, "deeper than {DEPTH}");
    sizes[0] += 1;
    match value {
        Value::Str(text) | Value::Opaque(text) => sizes[1] += text.len() as u64,
        Value::Bytes(bytes) => sizes[1] += bytes.len() as u64,
        Value::List(items) => items.iter().for_each(|item| measure(item, depth + 1, sizes)),
        Value::Dict(entries) => {
            for (key, value) in entries {
                measure(key, depth + 1, sizes);
                measure(value, depth + 1, sizes);
            }
        }
        Value::Tensor(tensor) => {
            let bytes = tensor.bytes();
            assert_eq!(bytes.len(), tensor.numel() * tensor.dtype().bitsize() / 8);
            let numbers = tensor.to_f64().map_or(tensor.numel(), |numbers| numbers.len());
            assert_eq!(numbers, tensor.numel());
            sizes[2] += bytes.len() as u64;
        }
        _ => {}
    }
}

const STRINGS: &[&str] = &[
    "state",
    "param_groups",
    "params",
    "lr",
    "step",
    "exp_avg",
    "exp_avg_sq",
    "storage",
    "0",
    "12",
    "255",
    "cpu",
    "latin1",
    "f8",
    "i8",
    "b1",
    "<",
    ">",
];

const GLOBALS: &[&str] = &[
    "torch._utils\n_rebuild_tensor_v2\n",
    "torch._utils\n_rebuild_tensor_v3\n",
    "torch._utils\n_rebuild_parameter\n",
    "torch\nFloatStorage\n",
    "torch\nLongStorage\n",
    "torch\nBoolStorage\n",
    "torch.storage\nUntypedStorage\n",
    "torch\nfloat16\n",
    "collections\nOrderedDict\n",
    "collections\ndefaultdict\n",
    "builtins\nset\n",
    "torch\nSize\n",
    "_codecs\nencode\n",
    "numpy\ndtype\n",
    "numpy._core.multiarray\nscalar\n",
    "posix\nsystem\n",
];

/// The opcodes that push a tensor of one dimension.
fn tensor(key: &str, count: u32, offset: u8, len: u8, stride: u8) -> Vec<u8> {
    let mut ops = b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    ops.extend(text("storage"));
    ops.extend(b"ctorch\nFloatStorage\n");
    ops.extend(text(key));
    ops.extend(text("cpu"));
    ops.push(b'J');
    ops.extend(count.to_le_bytes());
    ops.extend([b't', b'Q', b'K', offset, b'K', len, 0x85, b'K', stride, 0x85, 0x89, b'}']);
    ops.extend(b"tR");
    ops
}

fn text(s: &str) -> Vec<u8> {
    [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat()
}

/// A pickle that is likely to be well-formed for a while.
fn pickle(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut ops = vec![PROTOCOL, 2];
    while !u.is_empty() && ops.len() < 4096 {
        match u.arbitrary::<u8>()? % 32 {
            0..=2 => ops.extend([b'K', u.arbitrary::<u8>()? % 6]),
            3 => {
                let bytes = u.arbitrary::<[u8; 12]>()?;
                let len = u.int_in_range(0..=12)?;
                ops.extend([0x8a, len as u8]);
                ops.extend(&bytes[..len]);
            }
            4 => {
                ops.push(b'G');
                ops.extend(u.arbitrary::<f64>()?.to_be_bytes());
            }
            5..=8 => ops.extend(text(u.choose(STRINGS)?)),
            9 | 10 => ops.push(b'('),
            11 => ops.push(*u.choose(b"]})N\x88\x89\x8f")?),
            12..=15 => ops.push(*u.choose(b"tldeu\x90\x91asRb\x810Q2\x93")?),
            16 | 17 => ops.push(u.int_in_range(0x85..=0x87)?),
            18 | 19 => ops.extend([b'q', u.arbitrary::<u8>()? % 8]),
            20..=22 => ops.extend([b'h', u.arbitrary::<u8>()? % 8]),
            23 | 24 => {
                ops.push(b'c');
                ops.extend(u.choose(GLOBALS)?.as_bytes());
            }
            25..=28 => {
                let [offset, len, stride] = u.arbitrary::<[u8; 3]>()?.map(|x| x % 5);
                let key = *u.choose(&["12", "16", "0", "255"])?;
                let count = key.parse::<u32>().unwrap_or(0) / 4 + u32::from(u.ratio(1, 8)?);
                ops.extend(tensor(key, count, offset, len, stride));
            }
            29 => {
                // A tuple of the top object with itself, repeatedly: its size doubles each time.
                for _ in 0..u.int_in_range(1..=40)? {
                    ops.extend([b'q', 0, b'h', 0, 0x86]);
                }
            }
            30 => {
                let deep = u.int_in_range(1..=200)?;
                ops.extend(vec![0x85; deep]);
            }
            _ => ops.push(u.arbitrary()?),
        }
    }
    ops.push(b'.');
    Ok(ops)
}

/// Small pickles that expand to much, and an ordinary one.
#[must_use]
pub fn pickle_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let of = |ops: Vec<u8>| [&[PROTOCOL, 2][..], &ops, b"."].concat();
    let mut doubled = b"]".to_vec();
    for i in 0..60 {
        doubled.extend([b'q', i, b'h', i, 0x86]);
    }
    let mut views = b"(".to_vec();
    views.extend(tensor("252", 63, 0, 63, 1).repeat(30));
    views.push(b'l');
    let state = [
        b"}(".to_vec(),
        text("state"),
        b"}K\x00}(".to_vec(),
        text("step"),
        b"G?\xf0\x00\x00\x00\x00\x00\x00".to_vec(),
        text("exp_avg"),
        tensor("12", 3, 0, 3, 1),
        text("exp_avg_sq"),
        tensor("12", 3, 0, 3, 1),
        b"us".to_vec(),
        text("param_groups"),
        b"]}(".to_vec(),
        text("lr"),
        b"G?\xb9\x99\x99\x99\x99\x99\x9a".to_vec(),
        text("params"),
        b"]K\x00auau".to_vec(),
    ];
    vec![
        ("pickle_deep", of([vec![b'N'], vec![0x85; 600]].concat())),
        ("pickle_doubled", of(doubled)),
        ("pickle_itself", of(b"]q\x00h\x00a".to_vec())),
        ("pickle_long1", of(b"\x8a\x09\x01\x00\x00\x00\x00\x00\x00\x00\x80".to_vec())),
        ("pickle_declared", of(b"\x8d\x00\x00\x00\x00\x01\x00\x00\x00abc".to_vec())),
        ("pickle_views", of(views)),
        ("pickle_state", of(state.concat())),
    ]
}
