//! Every instruction of the kernels on selected operands: the interpreter against independent
//! definitions, implemented differently (integers in 128 bits, `f32` through `f64`). An instruction
//! without a definition fails.

use std::collections::BTreeSet;

use bitstep_ptx::Machine;

/// Instructions without arithmetic, each tested in `conformance/ptx/tests/opcodes.rs`.
const ELSEWHERE: [&str; 13] = [
    "ret",
    "bra",
    "bra.uni",
    "brx.idx",
    "mov.pred",
    "cvta",
    "shfl.sync.down.b32",
    "shfl.sync.bfly.b32",
    "shfl.sync.idx.b32",
    "bar.warp.sync",
    "atom.acq_rel.gpu.inc.u32",
    "not.pred",
    "trap",
];

/// Operands: edge cases of every integer width, and floats of every kind in both widths.
fn operands() -> Vec<u64> {
    let whole = [0, 1, 2, 7, 31, 32, 33, 64, 0x7f, 0x80, 0x7fff, 0x8000, 0xffff, 0x8000_0000];
    let wide = [0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX, 0x0123_4567_89ab_cdef];
    let single = [1.0f32, -1.5, 0.1, 3e38, 1e-40, -0.0, 65504.4, 2.5e9, f32::INFINITY, f32::NAN];
    let double = [1.0f64, -2.75, 0.1, 1e300, 5e-324, -0.0, 4.1e9, f64::NEG_INFINITY, f64::NAN];
    let single = single.into_iter().map(|x| u64::from(x.to_bits()));
    whole.into_iter().chain(wide).chain(single).chain(double.map(f64::to_bits)).collect()
}

fn bits(of: &str) -> u32 {
    of.get(1..).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn low(x: i128, of: &str) -> u64 {
    (x as u128 & ((1 << bits(of)) - 1)) as u64
}

/// The integer value, signed if the type is.
fn number(x: u64, of: &str) -> i128 {
    let x = low(x.into(), of).into();
    if of.starts_with('s') && x >> (bits(of) - 1) == 1 { x - (1 << bits(of)) } else { x }
}

fn float(x: u64, of: &str) -> f64 {
    if of == "f32" { f32::from_bits(x as u32).into() } else { f64::from_bits(x) }
}

/// Rounds to `f32`, where double rounding is exact: a sum, product, quotient or root computed in 53 bits.
fn as_bits(x: f64, of: &str) -> u64 {
    if of == "f32" { (x as f32).to_bits().into() } else { x.to_bits() }
}

/// The number of operands and the definition; `None` for an unknown instruction.
fn definition(name: &str, [a, b, c]: [u64; 3]) -> Option<(usize, u64)> {
    let parts: Vec<&str> = name.split('.').collect();
    let (&verb, &of) = (parts.first()?, parts.last()?);
    let middle = &parts[1..parts.len() - 1];
    let floats = of == "f32" || of == "f64";
    let n = |x| number(x, of);
    let f = |x| float(x, of);
    let shift = |x: u64| (x & 0xffff_ffff).min(127) as u32;
    Some(match (verb, middle) {
        ("add", ["rn"]) => (2, as_bits(f(a) + f(b), of)),
        ("sub", ["rn"]) => (2, as_bits(f(a) - f(b), of)),
        ("mul", ["rn"]) => (2, as_bits(f(a) * f(b), of)),
        ("div", ["rn"]) => (2, as_bits(f(a) / f(b), of)),
        ("rcp", ["rn"]) => (1, as_bits(1.0 / f(a), of)),
        ("sqrt", ["rn"]) => (1, as_bits(f(a).sqrt(), of)),
        ("neg", []) if floats => (1, a & mask(of) ^ 1 << (bits(of) - 1)),
        ("abs", []) if floats => (1, a & mask(of) & !(1 << (bits(of) - 1))),
        ("min" | "max", []) if floats => {
            let (x, y) = (f(a), f(b));
            let a_first = (x, x.is_sign_positive()) < (y, y.is_sign_positive());
            let first = if a_first == (verb == "min") { a } else { b };
            let chosen = if x.is_nan() {
                b
            } else if y.is_nan() {
                a
            } else {
                first
            };
            (2, chosen & mask(of))
        }
        ("setp", [how]) => (2, compare(how, of, a, b)?.into()),
        ("selp", []) => (3, if c & 1 == 1 { a } else { b } & mask(of)),
        ("cvt", ["rn", to]) if of.starts_with('f') => (1, as_bits(float(a, of), to)),
        ("cvt", _) => return convert(&parts[1..], a).map(|x| (1, x)),
        ("add", []) => (2, low(n(a) + n(b), of)),
        ("sub", []) => (2, low(n(a) - n(b), of)),
        ("neg", []) => (1, low(-n(a), of)),
        ("mul", ["lo"]) => (2, low(n(a).wrapping_mul(n(b)), of)),
        ("mul", ["hi"]) => {
            (2, low(((n(a) as u128).wrapping_mul(n(b) as u128) >> bits(of)) as i128, of))
        }
        ("mul", ["wide"]) => (2, n(a).wrapping_mul(n(b)) as u64 & twice(of)),
        ("mad", ["lo"]) => (3, low(n(a).wrapping_mul(n(b)).wrapping_add(n(c)), of)),
        ("mad", ["wide"]) => (3, (n(a).wrapping_mul(n(b)) as u64).wrapping_add(c) & twice(of)),
        // A GPU returns all ones for a division by zero.
        ("div", []) => (2, n(a).checked_div(n(b)).map_or(mask(of), |x| low(x, of))),
        ("rem", []) => (2, n(a).checked_rem(n(b)).map_or(mask(of), |x| low(x, of))),
        ("min", []) => (2, low(n(a).min(n(b)), of)),
        ("max", []) => (2, low(n(a).max(n(b)), of)),
        ("and", []) => (2, a & b & mask(of)),
        ("or", []) => (2, (a | b) & mask(of)),
        ("xor", []) => (2, (a ^ b) & mask(of)),
        ("not", []) => (1, !a & mask(of)),
        ("mov", []) => (1, a & mask(of)),
        ("shl", []) => (2, low(n(a) << shift(b).min(64), of)),
        ("shr", []) => (2, low(n(a) >> shift(b), of)),
        ("clz", []) => (1, (0..bits(of)).rev().take_while(|i| a >> i & 1 == 0).count() as u64),
        ("popc", []) => (1, (0..bits(of)).filter(|i| a >> i & 1 == 1).count() as u64),
        ("bfe", []) => {
            let (at, len) = ((b & 0xff) as u32, (c & 0xff) as u32);
            let taken = (0..len.min(32)).filter(|i| at + i < 32 && a >> (at + i) & 1 == 1);
            (3, taken.map(|i| 1 << i).sum())
        }
        ("prmt", []) => {
            let byte = |i: u64| (if i < 4 { a >> (8 * i) } else { b >> (8 * (i - 4)) }) & 0xff;
            let pick = |i: u64| match c >> (4 * i) & 15 {
                whole @ 0..8 => byte(whole),
                sign => (byte(sign - 8) >> 7) * 0xff,
            };
            (3, (0..4).map(|i| pick(i) << (8 * i)).sum())
        }
        ("shf", [way, "wrap"]) => {
            let both = i128::from(low(b.into(), of)) << 32 | i128::from(low(a.into(), of));
            let by = (c & 31) as u32;
            (3, low(if *way == "l" { both << by >> 32 } else { both >> by }, of))
        }
        _ => return None,
    })
}

fn mask(of: &str) -> u64 {
    low(-1, of)
}

fn twice(of: &str) -> u64 {
    if bits(of) == 32 { u64::MAX } else { (1 << (2 * bits(of))) - 1 }
}

fn compare(how: &str, of: &str, a: u64, b: u64) -> Option<bool> {
    let order = match of {
        "f32" | "f64" => float(a, of).partial_cmp(&float(b, of)),
        _ => Some(number(a, of).cmp(&number(b, of))),
    };
    let (how, unordered) = match how {
        "num" => return Some(order.is_some()),
        "nan" => return Some(order.is_none()),
        how if how.len() == 3 => (how.strip_suffix('u')?, true),
        how => (how, false),
    };
    let Some(order) = order else { return Some(unordered) };
    Some(match how {
        "eq" => order.is_eq(),
        "ne" => order.is_ne(),
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        "ge" => order.is_ge(),
        _ => return None,
    })
}

fn convert(types: &[&str], a: u64) -> Option<u64> {
    Some(match *types {
        ["f64", "f32"] => float(a, "f32").to_bits(),
        ["rn", "f32", from] => u64::from((number(a, from) as f32).to_bits()),
        ["rn", "f64", from] => (number(a, from) as f64).to_bits(),
        ["rzi", to, from] => {
            let (least, most) = match to.starts_with('s') {
                true => (-(1i128 << (bits(to) - 1)), (1i128 << (bits(to) - 1)) - 1),
                false => (0, (1i128 << bits(to)) - 1),
            };
            low((float(a, from).trunc() as i128).clamp(least, most), to)
        }
        // Into a register of 16 bits or more.
        ["s8", from] => number(low(number(a, from), "s8"), "s8") as u64,
        [to, from] => low(number(a, from), to),
        _ => return None,
    })
}

/// The values that loads and stores of this name give for memory that contains `a`.
fn in_memory(name: &str, a: u64) -> Option<(usize, Vec<u64>)> {
    let parts: Vec<&str> = name.split('.').collect();
    let (&of, count) = (parts.last()?, parts.iter().find_map(|p| p.strip_prefix('v')));
    let count = count.map_or(Some(1), |n| n.parse().ok())?;
    let bytes = a.to_le_bytes().repeat(4);
    let size = bits(of) as usize / 8;
    let one = |chunk: &[u8]| {
        let x = chunk.iter().rev().fold(0, |x, &b| x << 8 | u64::from(b));
        number(x, of) as u64
    };
    (size > 0).then(|| (count, bytes.chunks(size).take(count).map(one).collect()))
}

/// Runs lines of PTX that leave a value in `%d`.
fn run(lines: &str, [a, b, c]: [u64; 3]) -> u64 {
    let text = format!(
        ".visible .entry k(.param .u64 k_0, .param .u64 k_1, .param .u64 k_2, .param .u64 k_3)\n{{\n\
         .local .align 16 .b8 depot[64];\nld.param.b64 %out, [k_0];\nld.param.b64 %a, [k_1];\n\
         ld.param.b64 %b, [k_2];\nld.param.b64 %c, [k_3];\nmov.b64 %l, depot;\n\
         {lines}\nst.b64 [%out], %d;\nret;\n}}\n"
    );
    let mut machine = Machine::new(&text).unwrap_or_else(|e| panic!("{lines}: {e}"));
    let out = machine.alloc(64);
    machine.launch("k", 1, 1, &[out, a, b, c]).unwrap_or_else(|e| panic!("{lines}: {e}"));
    let mut bytes = [0; 8];
    machine.read(out, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

fn names() -> BTreeSet<&'static str> {
    let lines = bitstep_cudarc::ptx().lines().map(|line| {
        let line = line.trim();
        // In a nested scope, after a declaration.
        let line =
            line.strip_prefix('{').map_or(line, |l| l.split_once(';').map_or("", |(_, l)| l));
        let line = line.trim();
        line.strip_prefix('@')
            .map_or(line, |l| l.split_once(char::is_whitespace).map_or("", |x| x.1))
    });
    let names = lines.filter_map(|line| line.trim().split([' ', '\t', ';']).next());
    let first = |name: &&str| name.starts_with(|c: char| c.is_ascii_lowercase());
    names.filter(first).filter(|name| !name.contains(['$', ':'])).collect()
}

#[test]
fn every_instruction_of_the_kernels_does_what_its_definition_says() {
    let operands = operands();
    let some = [0, 1, 8, 16, 0xb402, 0x3210];
    let (mut checked, mut seen) = (0, 0);
    for name in names() {
        let stem = if name.starts_with("cvta") { "cvta" } else { name };
        if ELSEWHERE.contains(&stem) || name.ends_with(".pred") {
            continue;
        }
        seen += 1;
        if name.starts_with("ld.param") {
            // Each run below starts with it.
            assert_eq!(name, "ld.param.b64");
            continue;
        }
        let memory = name.starts_with("ld.") || name.starts_with("st.");
        if memory {
            let a = 0xf1e2_d3c4_b5a6_9788;
            let (count, want) = in_memory(name, a).unwrap_or_else(|| panic!("{name}"));
            let place = if name.contains(".local") { "%l" } else { "%out" };
            let space = if name.contains(".local") { ".local" } else { "" };
            let fill: String =
                (0..4).map(|i| format!("st{space}.b64 [{place}+{}], %a;\n", 8 * i)).collect();
            for (k, want) in want.iter().enumerate() {
                let list: Vec<_> = (0..count).map(|i| if i == k { "%d" } else { "%x" }).collect();
                let list = match count {
                    1 => list[0].to_owned(),
                    _ => format!("{{{}}}", list.join(", ")),
                };
                let size = bits(name.split('.').next_back().unwrap()) as usize / 8;
                let lines = match name.starts_with("ld.") {
                    true => format!("{fill}{name} {list}, [{place}];"),
                    // One value among zeros, and the word that contains it.
                    false => {
                        let zero = fill.replace("%a", "0");
                        let list = list.replace("%d", "%a").replace("%x", "0");
                        let at = k * size / 8 * 8;
                        format!(
                            "{zero}{name} [{place}], {list};\nld{space}.b64 %d, [{place}+{at}];"
                        )
                    }
                };
                let want = match name.starts_with("ld.") {
                    true => *want,
                    false => (a & mask(name.rsplit('.').next().unwrap())) << (8 * (k * size % 8)),
                };
                assert_eq!(run(&lines, [a, 0, 0]), want, "{lines}");
                checked += 1;
            }
            continue;
        }
        let (arity, _) =
            definition(name, [1, 1, 1]).unwrap_or_else(|| panic!("no definition of {name}"));
        for (i, &a) in operands.iter().enumerate() {
            // All second operands, if there is one, and a few third ones.
            for &b in if arity > 1 { &operands[..] } else { &operands[..1] } {
                let c = some[i % some.len()];
                let (_, want) = definition(name, [a, b, c]).unwrap();
                let lines = match (name.split('.').next().unwrap(), arity) {
                    ("setp", _) => format!("{name} %p, %a, %b;\nselp.b64 %d, 1, 0, %p;"),
                    ("selp", _) => {
                        format!(
                            "and.b64 %c, %c, 1;\nsetp.eq.b64 %p, %c, 1;\n{name} %d, %a, %b, %p;"
                        )
                    }
                    (_, 1) => format!("{name} %d, %a;"),
                    (_, 2) => format!("{name} %d, %a, %b;"),
                    _ => format!("{name} %d, %a, %b, %c;"),
                };
                let got = run(&lines, [a, b, c]);
                let of = if name.starts_with("cvt.") {
                    name.split('.').rev().nth(1).unwrap()
                } else {
                    name.rsplit('.').next().unwrap()
                };
                let nan =
                    |x| of.starts_with('f') && !name.starts_with("setp") && float(x, of).is_nan();
                let same = got == want || nan(got) && nan(want);
                assert!(same, "{name} {a:#x} {b:#x} {c:#x}: {got:#x}, by definition {want:#x}");
                checked += 1;
            }
        }
    }
    assert!(seen > 120 && checked > 50_000, "{seen} instructions, {checked} answers");
}
