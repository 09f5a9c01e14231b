//! Sectors and instructions of kernels for which they can be counted by hand.

use bitstep_ptx::{Class, Cost, Machine};

/// What a launch of 64 threads costs that each load the f32 at `[a + offset]`, take its root and store it at `[out + 4 ·
/// thread]`; `offset` is computed from the thread, `%t`.
fn cost(offset: &str) -> Cost {
    let text = format!(
        ".visible .entry k(.param .u64 k_0, .param .u64 k_1)\n{{\n\
         ld.param.b64 %out, [k_0];\nld.param.b64 %a, [k_1];\n\
         mov.u32 %t, %tid.x;\nmul.wide.u32 %four, %t, 4;\n{offset}\n\
         add.s64 %from, %a, %offset;\nadd.s64 %to, %out, %four;\n\
         ld.global.b32 %x, [%from];\nsqrt.rn.f32 %y, %x;\nst.global.b32 [%to], %y;\nret;\n}}\n"
    );
    let mut machine = Machine::new(&text).unwrap();
    let (out, a) = (machine.alloc(256), machine.alloc(8192));
    machine.launch("k", 1, 64, &[out, a]).unwrap();
    assert_eq!(machine.costs(), [], "nothing is counted before it is asked for");
    machine.count_costs();
    machine.launch("k", 1, 64, &[out, a]).unwrap();
    let [cost] = machine.costs() else { panic!("one launch") };
    assert_eq!(cost.issued[Class::Divide as usize], 2, "one root in each of two warps");
    assert_eq!(cost.issued[Class::Global as usize], 4, "a load and a store in each");
    assert_eq!(cost.written, 8, "64 neighbours are 256 bytes");
    cost.clone()
}

#[test]
fn neighbours_share_sectors() {
    let cost = cost("mul.wide.u32 %offset, %t, 4;");
    assert_eq!((cost.read, cost.asked), (8, 16));
}

#[test]
fn numbers_that_are_apart_have_a_sector_each() {
    let cost = cost("mul.wide.u32 %offset, %t, 128;");
    assert_eq!((cost.read, cost.asked), (64, 72));
}

#[test]
fn one_number_for_all_is_read_once() {
    let cost = cost("mul.wide.u32 %offset, %t, 0;");
    assert_eq!((cost.read, cost.asked), (1, 10), "each warp asks for it");
}
