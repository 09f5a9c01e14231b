//! Every instruction on chosen operands, by its definition in the PTX manual, and every fault.

use bitstep_ptx::{Error, Machine, lint};

/// A kernel with these lines, whose parameters a and b are 64-bit values.
fn kernel(lines: &str) -> String {
    format!(
        ".visible .entry k(.param .u64 k_0, .param .u64 k_1, .param .u64 k_2)\n{{\n\
         .local .align 8 .b8 depot[16];\n\
         ld.param.b64 %out, [k_0];\nld.param.b64 %a, [k_1];\nld.param.b64 %b, [k_2];\n\
         {lines}\nret;\n}}\n"
    )
}

/// The 64 bits that thread 0 stores.
fn run(lines: &str, a: u64, b: u64) -> Result<u64, Error> {
    let mut machine = Machine::new(&kernel(&format!("{lines}\nst.b64 [%out], %d;")))?;
    let out = machine.alloc(8);
    machine.launch("k", 1, 1, &[out, a, b])?;
    let mut bytes = [0; 8];
    machine.read(out, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn one(name: &str, a: u64) -> u64 {
    run(&format!("{name} %d, %a;"), a, 0).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn two(name: &str, a: u64, b: u64) -> u64 {
    run(&format!("{name} %d, %a, %b;"), a, b).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn f(x: f32) -> u64 {
    x.to_bits().into()
}

fn d(x: f64) -> u64 {
    x.to_bits()
}

#[test]
fn arithmetic_of_f32_rounds_once_to_nearest_even() {
    let tiny = f32::EPSILON / 2.0;
    for (name, a, b, want) in [
        ("add.rn.f32", 1.0, tiny, 1.0), // a tie, to even
        ("add.rn.f32", 1.0 + f32::EPSILON, tiny, 1.0 + 2.0 * f32::EPSILON),
        ("sub.rn.f32", 1.0, tiny / 2.0, 1.0),
        ("mul.rn.f32", 16_777_217.0, 3.0, 50_331_648.0),
        ("div.rn.f32", 1.0, 3.0, f32::from_bits(0x3eaa_aaab)),
        // Subnormal numbers are not flushed.
        ("mul.rn.f32", f32::MIN_POSITIVE, 0.5, f32::from_bits(0x0040_0000)),
        ("add.rn.f32", f32::from_bits(1), f32::from_bits(1), f32::from_bits(2)),
        ("div.rn.f32", 1.0, 0.0, f32::INFINITY),
    ] {
        assert_eq!(two(name, f(a), f(b)), f(want), "{name} {a} {b}");
    }
    assert_eq!(one("sqrt.rn.f32", f(2.0)), f(std::f32::consts::SQRT_2));
    assert_eq!(one("sqrt.rn.f32", f(-0.0)), f(-0.0));
    assert_eq!(one("rcp.rn.f32", f(3.0)), f(f32::from_bits(0x3eaa_aaab)));
    assert!(f32::from_bits(one("sqrt.rn.f32", f(-1.0)) as u32).is_nan());
}

#[test]
fn arithmetic_of_f64_rounds_once_to_nearest_even() {
    for (name, a, b, want) in [
        ("add.rn.f64", 1.0, f64::EPSILON / 2.0, 1.0),
        ("sub.rn.f64", 1.0, f64::EPSILON / 8.0, 1.0),
        ("mul.rn.f64", 9_007_199_254_740_993.0, 1.0, 9_007_199_254_740_992.0),
        ("div.rn.f64", 1.0, 3.0, f64::from_bits(0x3fd5_5555_5555_5555)),
    ] {
        assert_eq!(two(name, d(a), d(b)), d(want), "{name} {a} {b}");
    }
    assert_eq!(one("sqrt.rn.f64", d(2.0)), d(std::f64::consts::SQRT_2));
    assert_eq!(one("rcp.rn.f64", d(4.0)), d(0.25));
}

#[test]
fn minimum_and_maximum_pass_over_nan_and_order_the_zeros() {
    for (t, nan, one_, minus, plus) in [
        ("f32", f(f32::NAN), f(1.0), f(-0.0), f(0.0)),
        ("f64", d(f64::NAN), d(1.0), d(-0.0), d(0.0)),
    ] {
        for name in ["min", "max"] {
            assert_eq!(two(&format!("{name}.{t}"), nan, one_), one_);
            assert_eq!(two(&format!("{name}.{t}"), one_, nan), one_);
        }
        for (a, b) in [(minus, plus), (plus, minus)] {
            assert_eq!(two(&format!("min.{t}"), a, b), minus);
            assert_eq!(two(&format!("max.{t}"), a, b), plus);
        }
        assert_eq!(two(&format!("max.{t}"), one_, plus), one_);
        assert_eq!(one(&format!("neg.{t}"), plus), minus);
        assert_eq!(one(&format!("abs.{t}"), minus), plus);
    }
}

#[test]
fn conversions_round_once_and_saturate() {
    assert_eq!(one("cvt.rn.f32.f64", d(1.0 + f64::from(f32::EPSILON) / 2.0)), f(1.0));
    assert_eq!(one("cvt.f64.f32", f(0.1)), d(f64::from(0.1f32)));
    assert_eq!(one("cvt.rn.f32.u32", 16_777_217), f(16_777_216.0));
    assert_eq!(one("cvt.rn.f32.s16", 0xffff), f(-1.0));
    assert_eq!(one("cvt.rn.f32.u16", 0xffff), f(65535.0));
    assert_eq!(one("cvt.rn.f32.s32", 0xffff_fffe), f(-2.0));
    assert_eq!(one("cvt.rn.f64.u64", 1 << 63), d(9_223_372_036_854_775_808.0));
    for (x, want) in [(-1.9, -1), (2.9, 2), (1e10, i32::MAX), (-1e10, i32::MIN), (f32::NAN, 0)] {
        assert_eq!(one("cvt.rzi.s32.f32", f(x)) as u32 as i32, want, "{x}");
    }
    assert_eq!(one("cvt.rzi.u16.f32", f(-1.0)), 0);
    assert_eq!(one("cvt.rzi.u16.f32", f(1e6)), 0xffff);
    assert_eq!(one("cvt.s32.s16", 0x8000), 0xffff_8000);
    assert_eq!(one("cvt.u32.u16", 0x1_8000), 0x8000);
    assert_eq!(one("cvt.u16.u32", 0x1_8000), 0x8000);
    assert_eq!(one("cvt.u64.u32", 0xffff_ffff_ffff), 0xffff_ffff);
    assert_eq!(one("cvt.u32.u64", 0x1_0000_0002), 2);
    assert_eq!(one("cvt.s64.s32", 0xffff_ffff), u64::MAX);
}

#[test]
fn whole_numbers_wrap_in_their_width() {
    for (name, a, b, want) in [
        ("add.s16", 0xffff, 1, 0),
        ("add.s32", 0xffff_ffff, 2, 1),
        ("add.s64", u64::MAX, 1, 0),
        ("sub.s16", 0, 1, 0xffff),
        ("sub.s32", 0, 1, 0xffff_ffff),
        ("sub.s64", 0, 1, u64::MAX),
        ("mul.lo.s64", u64::MAX, 2, u64::MAX - 1),
        ("mul.hi.u64", u64::MAX, 2, 1),
        ("mul.wide.u32", 0xffff_ffff, 2, 0x1_ffff_fffe),
        ("mul.wide.s32", 0xffff_ffff, 2, (-2i64) as u64),
        ("mul.wide.u16", 0xffff, 2, 0x1_fffe),
        ("div.u64", 7, 2, 3),
        ("div.u32", 7, 0, 0xffff_ffff),
        ("rem.u64", 7, 4, 3),
        ("min.u64", 3, u64::MAX, 3),
        ("max.u16", 3, 0xffff, 0xffff),
        ("min.s16", 3, 0xffff, 0xffff),
        ("and.b32", 0b1100, 0b1010, 0b1000),
        ("or.b16", 0b1100, 0b1010, 0b1110),
        ("xor.b64", 0b1100, 0b1010, 0b0110),
        // Shifts by the width or more give 0, where x86 would wrap.
        ("shl.b32", 1, 32, 0),
        ("shl.b64", 1, 63, 1 << 63),
        ("shl.b16", 0x8001, 1, 2),
        ("shr.u32", 0x8000_0000, 31, 1),
        ("shr.u64", 1, 64, 0),
        ("shr.s32", 0x8000_0000, 40, 0xffff_ffff),
        ("shr.u16", 0x8000, 15, 1),
    ] {
        assert_eq!(two(name, a, b), want, "{name} {a:#x} {b:#x}");
    }
    assert_eq!(one("neg.s64", 1), u64::MAX);
    assert_eq!(one("not.b32", 0), 0xffff_ffff);
    assert_eq!(one("clz.b32", 1), 31);
    assert_eq!(one("clz.b32", 0), 32);
    let three = |name: &str, c: u64| run(&format!("{name} %d, %a, %b, {c};"), 0x1234_5678, 8);
    assert_eq!(three("bfe.u32", 8), Ok(0x56));
    assert_eq!(three("bfe.u32", 32), Ok(0x0012_3456));
    assert_eq!(three("mad.lo.s64", 5), Ok(0x1234_5678 * 8 + 5));
    // Bytes 2 and 0 of a, byte 0 of b, and the sign of byte 3 of a.
    assert_eq!(run("prmt.b32 %d, %a, %b, 0xb402U;", 0x8034_5678, 8), Ok(0xff08_7834));
    assert_eq!(run("shf.l.wrap.b32 %d, %a, %b, 8;", 0x1234_5678, 0x9a), Ok(0x9a12));
}

#[test]
fn comparisons_with_nan_are_false_unless_unordered() {
    let compare = |name: &str, a: u64, b: u64| {
        run(&format!("setp.{name} %p, %a, %b;\nselp.b64 %d, 1, 0, %p;"), a, b)
            .unwrap_or_else(|e| panic!("{name}: {e}"))
            == 1
    };
    for (name, less, equal, more, nan) in [
        ("lt", true, false, false, false),
        ("le", true, true, false, false),
        ("gt", false, false, true, false),
        ("ge", false, true, true, false),
        ("eq", false, true, false, false),
        ("ne", true, false, true, false),
        ("ltu", true, false, false, true),
        ("leu", true, true, false, true),
        ("gtu", false, false, true, true),
        ("geu", false, true, true, true),
        ("equ", false, true, false, true),
        ("neu", true, false, true, true),
        ("num", true, true, true, false),
        ("nan", false, false, false, true),
    ] {
        for (b, want) in [(2.0, less), (1.0, equal), (0.5, more), (f32::NAN, nan)] {
            assert_eq!(compare(&format!("{name}.f32"), f(1.0), f(b)), want, "{name} {b}");
            let (a, b) = (d(1.0), d(b.into()));
            assert_eq!(compare(&format!("{name}.f64"), a, b), want, "{name}");
        }
    }
    assert!(compare("lt.s32", 0xffff_ffff, 0) && !compare("lt.u32", 0xffff_ffff, 0));
    assert!(compare("gt.s16", 0, 0x8000) && compare("ge.u64", u64::MAX, 1));
    assert!(compare("eq.b16", 0x1_0001, 1) && compare("ne.b64", 0x1_0001, 1));
}

#[test]
fn predicates_and_guards_choose() {
    assert_eq!(run("setp.eq.b64 %p, %a, 1;\n@%p mov.b64 %d, 5;\n@!%p mov.b64 %d, 6;", 1, 0), Ok(5));
    assert_eq!(run("setp.eq.b64 %p, %a, 1;\n@%p mov.b64 %d, 5;\n@!%p mov.b64 %d, 6;", 2, 0), Ok(6));
    let and = "setp.eq.b64 %p, %a, 1;\nsetp.eq.b64 %q, %b, 1;\nand.pred %r, %p, %q;\n\
               not.pred %r, %r;\nselp.b64 %d, 1, 0, %r;";
    assert_eq!((run(and, 1, 1), run(and, 1, 0)), (Ok(0), Ok(1)));
    assert_eq!(run("mov.pred %p, -1;\nselp.f32 %d, 7, 0, %p;", 0, 0), Ok(7));
}

#[test]
fn branches_and_tables_of_branches_jump() {
    let sum = "mov.b64 %d, 0;\nmov.b64 %i, 0;\n$L_1:\nadd.s64 %d, %d, %i;\nadd.s64 %i, %i, 1;\n\
               setp.lt.u64 %p, %i, %a;\n@%p bra $L_1;";
    assert_eq!(run(sum, 10, 0), Ok(45));
    let table = "$L_t: .branchtargets\n$L_a,\n$L_b;\nbrx.idx %a, $L_t;\n$L_a:\nmov.b64 %d, 1;\n\
                 bra.uni $L_c;\n$L_b:\nmov.b64 %d, 2;\n$L_c:";
    assert_eq!((run(table, 0, 0), run(table, 1, 0)), (Ok(1), Ok(2)));
    assert!(run(table, 2, 0).is_err());
}

#[test]
fn words_are_taken_apart_and_put_together() {
    let halves = "mov.b64 {%x, %y}, %a;\nmov.b64 %d, {%y, %x};";
    assert_eq!(run(halves, 0x1_0000_0002, 0), Ok(0x2_0000_0001));
    let scoped = "{ .reg .b16 tmp; mov.b32 {tmp, %x}, %a; }\ncvt.u64.u16 %d, %x;";
    assert_eq!(run(scoped, 0x1234_5678, 0), Ok(0x1234));
}

#[test]
fn a_thread_has_memory_of_its_own() {
    let own = "mov.b64 %l, depot;\ncvta.local.u64 %g, %l;\nst.local.b32 [%l+4], %a;\n\
               ld.b32 %d, [%g+4];";
    assert_eq!(run(own, 7, 0), Ok(7));
    assert!(run(&own.replace("+4", "+16"), 7, 0).is_err());
}

#[test]
fn loads_and_stores_of_every_width_extend_as_they_say() {
    for (load, want) in [
        ("ld.b8", 0xf8),
        ("ld.s8", 0xffff_ffff_ffff_fff8),
        ("ld.b16", 0xf7f8),
        ("ld.global.b32", 0xf5f6_f7f8),
        ("ld.global.nc.b64", 0xf1f2_f3f4_f5f6_f7f8),
    ] {
        let lines =
            format!("mov.b64 %x, 0xf1f2f3f4f5f6f7f8;\nst.b64 [%out], %x;\n{load} %d, [%out];");
        assert_eq!(run(&lines, 0, 0), Ok(want), "{load}");
    }
    let pair = "mov.b64 %x, 0x200000001;\nst.b64 [%out], %x;\nld.v2.b32 {%x, %y}, [%out];\n\
                sub.s64 %d, %y, %x;";
    assert_eq!(run(pair, 0, 0), Ok(1));
    assert_eq!(run("st.v2.b32 [%out], {%a, %b};\nld.b64 %d, [%out];", 1, 2), Ok(0x2_0000_0001));
}

#[test]
fn a_shuffle_brings_the_number_of_the_lane_above() {
    let text = kernel(
        "mov.u32 %t, %tid.x;\nshfl.sync.down.b32 %s, %t, 16, 0x1f, 0xffffffff;\n\
         mul.wide.u32 %o, %t, 4;\nadd.s64 %o, %out, %o;\nst.b32 [%o], %s;",
    );
    let mut machine = Machine::new(&text).unwrap();
    let out = machine.alloc(64 * 4);
    machine.launch("k", 1, 64, &[out, 0, 0]).unwrap();
    let mut bytes = [0; 256];
    machine.read(out, &mut bytes).unwrap();
    let got: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    // Within each warp; beyond its end a lane gets its own value.
    let want = |t: u32| if t % 32 < 16 { t + 16 } else { t };
    assert_eq!(got, (0..64).map(want).collect::<Vec<_>>());
    // A shuffle that half of a warp does not reach is undefined on a GPU.
    assert!(machine.launch("k", 1, 16, &[out, 0, 0]).is_err());
}

#[test]
fn a_butterfly_brings_the_number_of_the_lane_that_differs_in_its_bits() {
    let text = kernel(
        "mov.u32 %t, %tid.x;\nshfl.sync.bfly.b32 %s, %t, 6, 0x1f, 0xffffffff;\n\
         mul.wide.u32 %o, %t, 4;\nadd.s64 %o, %out, %o;\nst.b32 [%o], %s;",
    );
    let mut machine = Machine::new(&text).unwrap();
    let out = machine.alloc(64 * 4);
    machine.launch("k", 1, 64, &[out, 0, 0]).unwrap();
    let mut bytes = [0; 256];
    machine.read(out, &mut bytes).unwrap();
    let got: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    assert_eq!(got, (0..64).map(|t| t ^ 6).collect::<Vec<_>>());
}

#[test]
fn a_shuffle_by_index_brings_the_number_of_that_lane() {
    let text = kernel(
        "mov.u32 %t, %tid.x;\nshfl.sync.idx.b32 %s, %t, 5, 0x1f, 0xffffffff;\n\
         mul.wide.u32 %o, %t, 4;\nadd.s64 %o, %out, %o;\nst.b32 [%o], %s;",
    );
    let mut machine = Machine::new(&text).unwrap();
    let out = machine.alloc(64 * 4);
    machine.launch("k", 1, 64, &[out, 0, 0]).unwrap();
    let mut bytes = [0; 256];
    machine.read(out, &mut bytes).unwrap();
    let got: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    assert_eq!(got, (0..64).map(|t| t / 32 * 32 + 5).collect::<Vec<_>>());
}

#[test]
fn a_counter_is_increased_by_every_thread_and_begins_again_at_its_limit() {
    let text = kernel("atom.acq_rel.gpu.inc.u32 %d, [%out], %b;");
    let mut machine = Machine::new(&text).unwrap();
    for (limit, threads, want) in [(100, 1, 1), (100, 64, 64), (63, 64, 0), (9, 64, 4), (0, 3, 0)] {
        let out = machine.alloc(4);
        machine.write(out, &[0; 4]).unwrap();
        machine.launch("k", 1, threads, &[out, 0, limit]).unwrap();
        let mut bytes = [0; 4];
        machine.read(out, &mut bytes).unwrap();
        assert_eq!(u32::from_le_bytes(bytes), want, "{limit} {threads}");
        assert!(machine.launch("k", 1, threads, &[out + 2, 0, limit]).is_err(), "misaligned");
    }
    // Each thread gets what it was before.
    assert_eq!(run("mov.b64 %d, 0;\natom.acq_rel.gpu.inc.u32 %d, [%a], 7;", 0, 0).ok(), None);
    let text = "mov.b64 %d, 0;\nst.b64 [%out], %b;\natom.acq_rel.gpu.inc.u32 %d, [%out], 7;";
    assert_eq!((run(text, 0, 5), run(text, 0, 7)), (Ok(5), Ok(7)));
}

/// Lanes read what the next one has written, before a barrier or without one.
#[test]
fn a_barrier_shows_a_warp_what_its_threads_have_written() {
    let of = |barrier: &str, read: &str| {
        let lines = ".shared .align 16 .b8 ours[512];\ncvta.shared.u64 %x, ours;\n\
             mov.u32 %t, %tid.x;\nmul.wide.u32 %o, %t, 4;\nadd.s64 %x, %x, %o;\nst.b32 [%x], %t;";
        let text = format!(
            "{lines}\n{barrier}\nadd.s64 %x, %x, {read};\nld.b32 %s, [%x];\n\
             add.s64 %o, %out, %o;\nst.b32 [%o], %s;"
        );
        let mut machine = Machine::new(&kernel(&text)).unwrap();
        let out = machine.alloc(64 * 4);
        machine.launch("k", 1, 64, &[out, 0, 0])?;
        let mut bytes = [0; 256];
        machine.read(out, &mut bytes)?;
        Ok::<u32, Error>(u32::from_le_bytes(bytes[..4].try_into().unwrap()))
    };
    let barrier = "bar.warp.sync 0xffffffff;";
    assert_eq!(of(barrier, "0"), Ok(0));
    // The last lane reads a word of another warp.
    assert!(of(barrier, "4").is_err());
    assert!(of("", "4").is_err());
    // The other half of the warp.
    let other = "and.b32 %h, %t, 16;\nmul.wide.u32 %h, %h, 8;\nsub.s64 %x, %x, %h;";
    assert_eq!(of(&format!("{barrier}\n{other}"), "64"), Ok(16));
    assert!(of(other, "64").is_err());
    // Not all come to it.
    let text = "mov.u32 %t, %tid.x;\nsetp.eq.b32 %p, %t, 3;\n@%p bra $L_1;\n\
                bar.warp.sync 0xffffffff;\n$L_1:";
    let mut machine = Machine::new(&kernel(text)).unwrap();
    assert!(machine.launch("k", 1, 32, &[0, 0, 0]).is_err());
}

#[test]
fn blocks_and_warps_run_backwards_where_that_is_asked_for() {
    // Each thread but the first of all writes its number over what was there.
    let text = kernel(
        "mov.u32 %t, %tid.x;\nmov.u32 %c, %ctaid.x;\nmad.lo.s32 %t, %c, 64, %t;\n\
         st.b32 [%out], %t;",
    );
    let mut machine = Machine::new(&text).unwrap();
    let out = machine.alloc(4);
    for (backwards, want) in [(false, 191), (true, 31)] {
        if backwards {
            machine.run_backwards();
        }
        machine.launch("k", 3, 64, &[out, 0, 0]).unwrap();
        let mut bytes = [0; 4];
        machine.read(out, &mut bytes).unwrap();
        assert_eq!(u32::from_le_bytes(bytes), want);
    }
}

#[test]
fn shared_memory_is_a_threads_own_without_a_barrier() {
    let of = |read: &str| {
        kernel(&format!(
            ".shared .align 16 .b8 mine[256];\ncvta.shared.u64 %x, mine;\nmov.u32 %t, %tid.x;\n\
             mul.wide.u32 %o, %t, 4;\nadd.s64 %x, %x, %o;\nst.b32 [%x], %t;\n\
             ld.b32 %s, [%x{read}];\nadd.s64 %o, %out, %o;\nst.b32 [%o], %s;"
        ))
    };
    let run = |read: &str, threads: u32| {
        let mut machine = Machine::new(&of(read)).unwrap();
        let out = machine.alloc(64 * 4);
        machine.launch("k", 2, threads, &[out, 0, 0])?;
        let mut bytes = [0; 256];
        machine.read(out, &mut bytes)?;
        Ok::<u32, Error>(u32::from_le_bytes(bytes[4 * 63..].try_into().unwrap()))
    };
    assert_eq!(run("", 64), Ok(63));
    // What another thread has written, or will; what nobody has; beyond the end.
    assert!(run("+4", 64).is_err());
    assert!(run("+4", 32).is_err());
    assert!(run("+256", 64).is_err());
}

#[test]
fn threads_that_part_meet_again_before_a_shuffle() {
    // Odd lanes run a loop as often as their index.
    let text = kernel(
        "mov.u32 %t, %tid.x;\ncvt.u64.u32 %n, %t;\nmov.b64 %i, 0;\nand.b32 %odd, %t, 1;\n\
         setp.eq.b32 %p, %odd, 0;\n@%p bra $L_2;\n$L_1:\nadd.s64 %i, %i, 1;\n\
         setp.lt.u64 %p, %i, %n;\n@%p bra $L_1;\n$L_2:\n\
         shfl.sync.down.b32 %s, %i, 1, 0x1f, 0xffffffff;\n\
         mul.wide.u32 %o, %t, 4;\nadd.s64 %o, %out, %o;\nst.b32 [%o], %s;",
    );
    let mut machine = Machine::new(&text).unwrap();
    let out = machine.alloc(32 * 4);
    machine.launch("k", 1, 32, &[out, 0, 0]).unwrap();
    let mut bytes = [0; 128];
    machine.read(out, &mut bytes).unwrap();
    let got: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    let own = |t: u32| if t % 2 == 1 { t } else { 0 };
    let want = |t: u32| if t == 31 { own(31) } else { own(t + 1) };
    assert_eq!(got, (0..32).map(want).collect::<Vec<_>>());
}

#[test]
fn blocks_and_threads_know_their_numbers() {
    let lines = "mov.u32 %t, %tid.x;\nmov.u32 %n, %ntid.x;\nmov.u32 %c, %ctaid.x;\n\
                 mov.u32 %m, %nctaid.x;\nmul.wide.u32 %i, %c, %n;\nadd.s64 %i, %i, %t;\n\
                 mul.lo.s64 %o, %i, 4;\nadd.s64 %o, %out, %o;\nst.b32 [%o], %m;";
    let mut machine = Machine::new(&kernel(lines)).unwrap();
    let out = machine.alloc(3 * 40 * 4);
    machine.launch("k", 3, 40, &[out, 0, 0]).unwrap();
    let mut bytes = [0; 480];
    machine.read(out, &mut bytes).unwrap();
    assert!(bytes.as_chunks().0.iter().all(|b| u32::from_le_bytes(*b) == 3));
}

#[test]
fn memory_out_of_bounds_misaligned_or_given_back_is_a_fault() {
    let mut machine = Machine::new(&kernel("ld.b32 %d, [%a];")).unwrap();
    let [first, second] = [machine.alloc(8), machine.alloc(8)];
    let at = |machine: &mut Machine, address| machine.launch("k", 1, 1, &[0, address, 0]);
    assert_eq!(at(&mut machine, first + 4), Ok(()));
    for address in [0, 4, first - 4, first + 8, first + 2, second + 8, u64::MAX - 3] {
        let error = at(&mut machine, address).unwrap_err();
        assert!(matches!(error, Error::Fault { line: 7, thread: 0, .. }), "{address:#x}: {error}");
    }
    machine.free(first).unwrap();
    assert!(at(&mut machine, first).is_err() && machine.free(first).is_err());
    assert!(machine.write(second + 4, &[0; 8]).is_err());
}

#[test]
fn what_is_not_known_is_refused() {
    for line in [
        "fma.rn.f32 %d, %a, %b, %b;",
        "add.f32 %d, %a, %b;",
        "div.approx.f32 %d, %a, %b;",
        "bar.sync 0;",
        "add.s64 %d, %a;",
        "add.s64 %d, %a, nothing;",
        "bra $L_9;",
        "ld.shared.b32 %d, [%a];",
        "setp.lt.s32|x %d, %a, %b;",
    ] {
        assert!(matches!(Machine::new(&kernel(line)), Err(Error::Parse { .. })), "{line}");
    }
    let mut machine = Machine::new(&kernel("trap;")).unwrap();
    assert!(machine.launch("k", 1, 1, &[0; 3]).is_err());
    assert!(machine.launch("k", 1, 1, &[0; 2]).is_err() && machine.launch("j", 1, 1, &[]).is_err());
}

#[test]
fn lint_names_every_operation_that_was_not_asked_for() {
    for line in [
        "fma.rn.f32 %r1, %r2, %r3, %r4;",
        "@%p1 mad.rn.f32 %r1, %r2, %r3, %r4;",
        "add.f32 %r1, %r2, %r3;",
        "add.rn.ftz.f32 %r1, %r2, %r3;",
        "add.rz.f64 %r1, %r2, %r3;",
        "div.full.f32 %r1, %r2, %r3;",
        "sqrt.approx.f32 %r1, %r2;",
        "ex2.approx.f32 %r1, %r2;",
        "cvt.rna.tf32.f32 %r1, %r2;",
        "cvt.rni.f32.f32 %r1, %r2;",
        "setp.lt.ftz.f32 %p1, %r1, %r2;",
        "add.rn.bf16 %rs1, %rs2, %rs3;",
        "{ .reg .b16 tmp; fma.rn.f32 %r1, %r2, %r3, %r4; }",
        "call.uni somewhere, (param0);",
        ".extern .func somewhere",
    ] {
        let said = lint(&format!("// a comment\n\t{line}\n"));
        assert!(said.len() == 1 && said[0].starts_with("line 2: "), "{line}: {said:?}");
    }
    for line in [
        "add.rn.f32 %r1, %r2, %r3;",
        "@!%p1 mul.rn.f64 %rd1, %rd2, %rd3;",
        "mad.lo.s64 %rd1, %rd2, %rd3, %rd4;",
        "setp.leu.f32 %p1, %r1, %r2;",
        "cvt.rzi.s32.f32 %r1, %r2;",
        "cvt.f64.f32 %rd1, %r2;",
        "ld.b32 %r1, [%rd1]; // fma.rn.f32",
    ] {
        assert!(lint(line).is_empty(), "{line}");
    }
}
