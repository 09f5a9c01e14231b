//! The arithmetic of the instructions. Registers hold 64 bits; a narrower value is in the lowest.

pub(crate) type One = fn(u64) -> u64;
pub(crate) type Two = fn(u64, u64) -> u64;
pub(crate) type Three = fn(u64, u64, u64) -> u64;

/// A pure function of an instruction's operands.
#[derive(Clone, Copy)]
pub(crate) enum Op {
    One(One),
    Two(Two),
    Three(Three),
}

/// Conversion from and to register bits.
trait Bits: Copy {
    fn get(x: u64) -> Self;
    fn put(self) -> u64;
}

macro_rules! bits {
    ($($t:ty, $u:ty;)*) => {$(
        impl Bits for $t {
            fn get(x: u64) -> Self {
                x as $t
            }
            fn put(self) -> u64 {
                u64::from(self as $u)
            }
        }
    )*};
}
bits! { u8, u8; i8, u8; u16, u16; i16, u16; u32, u32; i32, u32; u64, u64; i64, u64; }

impl Bits for f32 {
    fn get(x: u64) -> Self {
        f32::from_bits(x as u32)
    }
    fn put(self) -> u64 {
        self.to_bits().into()
    }
}

impl Bits for f64 {
    fn get(x: u64) -> Self {
        f64::from_bits(x)
    }
    fn put(self) -> u64 {
        self.to_bits()
    }
}

impl Bits for bool {
    fn get(x: u64) -> Self {
        x & 1 == 1
    }
    fn put(self) -> u64 {
        self.into()
    }
}

/// Wraps a function of typed values.
macro_rules! op {
    (|$a:ident: $ta:ty| $body:expr) => {
        Op::One(|$a| {
            let $a = <$ta>::get($a);
            Bits::put($body)
        })
    };
    (|$a:ident: $ta:ty, $b:ident: $tb:ty| $body:expr) => {
        Op::Two(|$a, $b| {
            let ($a, $b) = (<$ta>::get($a), <$tb>::get($b));
            Bits::put($body)
        })
    };
    (|$a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty| $body:expr) => {
        Op::Three(|$a, $b, $c| {
            let ($a, $b, $c) = (<$ta>::get($a), <$tb>::get($b), <$tc>::get($c));
            Bits::put($body)
        })
    };
}

/// Looks up an instruction.
pub(crate) fn op(name: &str) -> Option<Op> {
    let parts: Vec<&str> = name.split('.').collect();
    match *parts.as_slice() {
        ["setp", compare, of] => setp(compare, of),
        ["cvt", to, from] => cvt_whole(to, from),
        ["selp", of] => Some(match of {
            "b16" => op!(|a: u16, b: u16, p: bool| if p { a } else { b }),
            "b32" | "f32" => op!(|a: u32, b: u32, p: bool| if p { a } else { b }),
            "b64" | "f64" => op!(|a: u64, b: u64, p: bool| if p { a } else { b }),
            _ => return None,
        }),
        [name, of] => integer(name, of).or_else(|| exact(name, of)),
        _ => rounded(name).or_else(|| wide(name)),
    }
}

/// Operations that round once, to nearest even.
fn rounded(name: &str) -> Option<Op> {
    Some(match name {
        "add.rn.f32" => op!(|a: f32, b: f32| a + b),
        "sub.rn.f32" => op!(|a: f32, b: f32| a - b),
        "mul.rn.f32" => op!(|a: f32, b: f32| a * b),
        "div.rn.f32" => op!(|a: f32, b: f32| a / b),
        "rcp.rn.f32" => op!(|a: f32| 1.0 / a),
        "sqrt.rn.f32" => op!(|a: f32| a.sqrt()),
        "add.rn.f64" => op!(|a: f64, b: f64| a + b),
        "sub.rn.f64" => op!(|a: f64, b: f64| a - b),
        "mul.rn.f64" => op!(|a: f64, b: f64| a * b),
        "div.rn.f64" => op!(|a: f64, b: f64| a / b),
        "rcp.rn.f64" => op!(|a: f64| 1.0 / a),
        "sqrt.rn.f64" => op!(|a: f64| a.sqrt()),
        "cvt.rn.f32.f64" => op!(|a: f64| a as f32),
        "cvt.rn.f32.s16" => op!(|a: i16| f32::from(a)),
        "cvt.rn.f32.u16" => op!(|a: u16| f32::from(a)),
        "cvt.rn.f32.s32" => op!(|a: i32| a as f32),
        "cvt.rn.f32.u32" => op!(|a: u32| a as f32),
        "cvt.rn.f32.s64" => op!(|a: i64| a as f32),
        "cvt.rn.f32.u64" => op!(|a: u64| a as f32),
        "cvt.rn.f64.s32" => op!(|a: i32| f64::from(a)),
        "cvt.rn.f64.u32" => op!(|a: u32| f64::from(a)),
        "cvt.rn.f64.s64" => op!(|a: i64| a as f64),
        "cvt.rn.f64.u64" => op!(|a: u64| a as f64),
        // Towards zero, saturating, and 0 for NaN, as Rust's `as`.
        "cvt.rzi.s32.f32" => op!(|a: f32| a as i32),
        "cvt.rzi.u32.f32" => op!(|a: f32| a as u32),
        "cvt.rzi.s16.f32" => op!(|a: f32| a as i16),
        "cvt.rzi.u16.f32" => op!(|a: f32| a as u16),
        "cvt.rzi.s64.f64" => op!(|a: f64| a as i64),
        "cvt.rzi.u64.f64" => op!(|a: f64| a as u64),
        _ => return None,
    })
}

/// Operations on floats that do not round.
fn exact(name: &str, of: &str) -> Option<Op> {
    Some(match (name, of) {
        ("neg", "f32") => op!(|a: f32| -a),
        ("neg", "f64") => op!(|a: f64| -a),
        ("abs", "f32") => op!(|a: f32| a.abs()),
        ("abs", "f64") => op!(|a: f64| a.abs()),
        // If one is NaN, the other; −0 is less than +0.
        ("min", "f32") => {
            op!(|a: f32, b: f32| if a < b || b.is_nan() || a == b && a.is_sign_negative() {
                a
            } else {
                b
            })
        }
        ("max", "f32") => {
            op!(|a: f32, b: f32| if a > b || b.is_nan() || a == b && b.is_sign_negative() {
                a
            } else {
                b
            })
        }
        ("min", "f64") => {
            op!(|a: f64, b: f64| if a < b || b.is_nan() || a == b && a.is_sign_negative() {
                a
            } else {
                b
            })
        }
        ("max", "f64") => {
            op!(|a: f64, b: f64| if a > b || b.is_nan() || a == b && b.is_sign_negative() {
                a
            } else {
                b
            })
        }
        _ => return None,
    })
}

/// Operations on integers and bits, all of one type.
fn integer(name: &str, of: &str) -> Option<Op> {
    macro_rules! of {
        ($u:ident, $i:ident, $bits:literal) => {
            match (name, of.as_bytes().first()?) {
                ("mov", _) => op!(|a: $u| a),
                ("not", b'b') => op!(|a: $u| !a),
                ("and", b'b') => op!(|a: $u, b: $u| a & b),
                ("or", b'b') => op!(|a: $u, b: $u| a | b),
                ("xor", b'b') => op!(|a: $u, b: $u| a ^ b),
                ("add", b's' | b'u') => op!(|a: $u, b: $u| a.wrapping_add(b)),
                ("sub", b's' | b'u') => op!(|a: $u, b: $u| a.wrapping_sub(b)),
                ("neg", b's') => op!(|a: $u| a.wrapping_neg()),
                ("min", b'u') => op!(|a: $u, b: $u| a.min(b)),
                ("max", b'u') => op!(|a: $u, b: $u| a.max(b)),
                ("min", b's') => op!(|a: $i, b: $i| a.min(b)),
                ("max", b's') => op!(|a: $i, b: $i| a.max(b)),
                // Division by zero gives all ones.
                ("div", b'u') => op!(|a: $u, b: $u| a.checked_div(b).unwrap_or($u::MAX)),
                ("rem", b'u') => op!(|a: $u, b: $u| a.checked_rem(b).unwrap_or($u::MAX)),
                // Shifts by the width or more push out all bits.
                ("shl", b'b') => op!(|a: $u, n: u32| a.checked_shl(n).unwrap_or(0)),
                ("shr", b'u' | b'b') => op!(|a: $u, n: u32| a.checked_shr(n).unwrap_or(0)),
                ("shr", b's') => op!(|a: $i, n: u32| a >> n.min($bits - 1)),
                _ => return None,
            }
        };
    }
    Some(match of.get(1..)? {
        "16" if !of.starts_with('f') => of!(u16, i16, 16),
        "32" if !of.starts_with('f') => match (name, of) {
            ("clz", "b32") => op!(|a: u32| a.leading_zeros()),
            ("popc", "b32") => op!(|a: u32| a.count_ones()),
            ("bfe", "u32") => op!(|a: u32, at: u32, len: u32| {
                let (at, len) = (at & 0xff, len & 0xff);
                let low = a.checked_shr(at).unwrap_or(0);
                if len >= 32 { low } else { low & ((1 << len) - 1) }
            }),
            ("prmt", "b32") => op!(|a: u32, b: u32, select: u32| prmt(a, b, select)),
            _ => of!(u32, i32, 32),
        },
        "64" if !of.starts_with('f') => match (name, of) {
            ("clz", "b64") => op!(|a: u64| a.leading_zeros()),
            _ => of!(u64, i64, 64),
        },
        "red" => match name {
            "and" => op!(|a: bool, b: bool| a & b),
            "or" => op!(|a: bool, b: bool| a | b),
            "xor" => op!(|a: bool, b: bool| a ^ b),
            "not" => op!(|a: bool| !a),
            "mov" => op!(|a: bool| a),
            _ => return None,
        },
        _ => return None,
    })
}

/// Each nibble of `select` picks a byte of b:a, or, if its highest bit is set, replicates that byte's sign.
fn prmt(a: u32, b: u32, select: u32) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    u32::from_le_bytes(std::array::from_fn(|i| {
        let nibble = select >> (4 * i) & 0xf;
        let byte = bytes[(nibble & 7) as usize];
        if nibble & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 }
    }))
}

/// Operations with operands and results of different widths.
fn wide(name: &str) -> Option<Op> {
    Some(match name {
        "mul.lo.s16" | "mul.lo.u16" => op!(|a: u16, b: u16| a.wrapping_mul(b)),
        "mul.lo.s32" | "mul.lo.u32" => op!(|a: u32, b: u32| a.wrapping_mul(b)),
        "mul.lo.s64" | "mul.lo.u64" => op!(|a: u64, b: u64| a.wrapping_mul(b)),
        "mul.hi.u32" => op!(|a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        "mul.hi.u64" => op!(|a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        "mul.wide.u16" => op!(|a: u16, b: u16| u32::from(a) * u32::from(b)),
        "mul.wide.s16" => op!(|a: i16, b: i16| i32::from(a) * i32::from(b)),
        "mul.wide.u32" => op!(|a: u32, b: u32| u64::from(a) * u64::from(b)),
        "mul.wide.s32" => op!(|a: i32, b: i32| i64::from(a) * i64::from(b)),
        "mad.lo.s32" | "mad.lo.u32" => {
            op!(|a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c))
        }
        "mad.lo.s64" | "mad.lo.u64" => {
            op!(|a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c))
        }
        "mad.wide.u32" => {
            op!(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c))
        }
        "shf.l.wrap.b32" => op!(|a: u32, b: u32, n: u32| {
            (((u64::from(b) << 32 | u64::from(a)) << (n & 31)) >> 32) as u32
        }),
        "shf.r.wrap.b32" => {
            op!(|a: u32, b: u32, n: u32| ((u64::from(b) << 32 | u64::from(a)) >> (n & 31)) as u32)
        }
        _ => return None,
    })
}

/// Conversions between integers, and from `f32` to `f64`.
fn cvt_whole(to: &str, from: &str) -> Option<Op> {
    if (to, from) == ("f64", "f32") {
        return Some(op!(|a: f32| f64::from(a)));
    }
    macro_rules! from {
        ($to:ty) => {
            match from {
                "u8" => op!(|a: u8| a as $to),
                "s8" => op!(|a: i8| a as $to),
                "u16" => op!(|a: u16| a as $to),
                "s16" => op!(|a: i16| a as $to),
                "u32" => op!(|a: u32| a as $to),
                "s32" => op!(|a: i32| a as $to),
                "u64" => op!(|a: u64| a as $to),
                "s64" => op!(|a: i64| a as $to),
                _ => return None,
            }
        };
    }
    Some(match to {
        "u8" => from!(u8),
        // Registers have 16 bits or more: the sign fills them.
        "s8" if from.starts_with(['u', 's']) => op!(|a: i8| i64::from(a)),
        "u16" | "s16" => from!(u16),
        "u32" | "s32" => from!(u32),
        "u64" | "s64" => from!(u64),
        _ => return None,
    })
}

#[expect(clippy::redundant_pattern_matching, reason = "one form for all comparisons")]
fn setp(compare: &str, of: &str) -> Option<Op> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    macro_rules! whole {
        ($t:ty) => {
            match compare {
                "eq" => op!(|a: $t, b: $t| a == b),
                "ne" => op!(|a: $t, b: $t| a != b),
                "lt" | "lo" => op!(|a: $t, b: $t| a < b),
                "le" | "ls" => op!(|a: $t, b: $t| a <= b),
                "gt" | "hi" => op!(|a: $t, b: $t| a > b),
                "ge" | "hs" => op!(|a: $t, b: $t| a >= b),
                _ => return None,
            }
        };
    }
    // The orderings for which the comparison is true; `None` stands for NaN.
    macro_rules! float {
        ($t:ty: $($name:literal => $ways:pat,)*) => {
            match compare {
                $($name => op!(|a: $t, b: $t| matches!(a.partial_cmp(&b), $ways)),)*
                _ => return None,
            }
        };
        ($t:ty) => {
            float! { $t:
                "eq" => Some(Equal),
                "ne" => Some(Less | Greater),
                "lt" => Some(Less),
                "le" => Some(Less | Equal),
                "gt" => Some(Greater),
                "ge" => Some(Greater | Equal),
                "equ" => Some(Equal) | None,
                "neu" => Some(Less | Greater) | None,
                "ltu" => Some(Less) | None,
                "leu" => Some(Less | Equal) | None,
                "gtu" => Some(Greater) | None,
                "geu" => Some(Greater | Equal) | None,
                "num" => Some(_),
                "nan" => None,
            }
        };
    }
    Some(match of {
        "b16" | "u16" => whole!(u16),
        "b32" | "u32" => whole!(u32),
        "b64" | "u64" => whole!(u64),
        "s16" => whole!(i16),
        "s32" => whole!(i32),
        "s64" => whole!(i64),
        "f32" => float!(f32),
        "f64" => float!(f64),
        _ => return None,
    })
}
