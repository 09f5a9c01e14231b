//! The header's guarantees on pointers, saved state, types and sizes: errors are reported, and nothing is
//! written then.

use std::ffi::{CString, c_char, c_void};
use std::ptr::{null, null_mut};

use bitstep_capi::*;

/// A call's status and message.
fn call(f: impl FnOnce(*mut ErrorMessage) -> i32) -> (i32, String) {
    let mut error = ErrorMessage { message: [0; 256] };
    let status = f(&mut error);
    let text = error.message.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    (status, String::from_utf8(text).expect("a message in UTF-8"))
}

/// [`call`], asserting success.
fn well(f: impl FnOnce(*mut ErrorMessage) -> i32) {
    assert_eq!(call(f), (BITSTEP_OK, String::new()));
}

fn text(s: &str) -> CString {
    CString::new(s).expect("no 0 within")
}

fn optimizer(name: &str, arguments: &str, shape: &[usize], dtype: u32) -> *mut Optimizer {
    let (name, arguments) = (text(name), text(arguments));
    let (mut made, mut group) = (null_mut(), 7);
    // SAFETY: live strings and outputs.
    unsafe {
        well(|e| bitstep_optimizer_new(&mut made, e));
        let (name, arguments) = (name.as_ptr(), arguments.as_ptr());
        well(|e| bitstep_optimizer_add_group(made, name, arguments, &mut group, e));
        well(|e| bitstep_optimizer_add_param(made, 0, shape.as_ptr(), shape.len(), dtype, e));
    }
    made
}

fn rule(name: &str, arguments: &str) -> Result<*mut Rule, (i32, String)> {
    let (name, arguments, mut made) = (text(name), text(arguments), null_mut());
    // SAFETY: live strings and outputs.
    match call(|e| unsafe { bitstep_rule_new(name.as_ptr(), arguments.as_ptr(), &mut made, e) }) {
        (BITSTEP_OK, _) => Ok(made),
        refused => Err(refused),
    }
}

fn schedule(name: &str, arguments: &str) -> *mut Schedule {
    let (name, arguments, mut made) = (text(name), text(arguments), null_mut());
    // SAFETY: live strings and outputs.
    well(|e| unsafe { bitstep_schedule_new(name.as_ptr(), arguments.as_ptr(), &mut made, e) });
    made
}

fn saved(optimizer: *const Optimizer) -> Vec<u8> {
    let mut size = 0;
    // SAFETY: a live handle, and memory of the stated length.
    unsafe {
        well(|e| bitstep_optimizer_save_size(optimizer, &mut size, e));
        let mut memory = vec![0; size];
        well(|e| bitstep_optimizer_save(optimizer, memory.as_mut_ptr(), size, e));
        memory
    }
}

fn tensor<T, G>(data: &mut [T], dtype: u32, grad: &[G], grad_dtype: u32) -> Tensor {
    let (len, grad) = (data.len(), grad.as_ptr().cast());
    Tensor { data: data.as_mut_ptr().cast(), len, dtype, grad_dtype, grad }
}

#[test]
fn type_that_was_not_declared_is_refused_and_nothing_is_written() {
    let o = optimizer("adamw_torch", "", &[4], BITSTEP_F32);
    let before = saved(o);
    let (mut data, grad) = ([1.0f64; 4], [1.0f32; 4]);
    let t = tensor(&mut data, BITSTEP_F64, &grad, BITSTEP_F32);
    // SAFETY: a live handle, and live tensors.
    unsafe {
        let (status, message) = call(|e| bitstep_optimizer_step(o, &t, 1, null(), 0, e));
        assert_eq!(status, BITSTEP_ARGUMENT, "{message}");
        assert_eq!(call(|e| bitstep_optimizer_eval(o, &t, 1, e)).0, BITSTEP_ARGUMENT);
        assert_eq!((data, saved(o)), ([1.0; 4], before));
        bitstep_optimizer_free(o);
    }
}

#[test]
fn what_is_written_to_overlaps_nothing() {
    let o = optimizer("adamw_torch", "", &[4], BITSTEP_F32);
    let r = rule("adamw_torch", "").expect("a rule");
    let s = schedule("constant", "");
    let expect = |f: &mut dyn FnMut(*mut ErrorMessage) -> i32| {
        let (status, message) = call(f);
        assert_eq!(
            (status, message.as_str()),
            (BITSTEP_POINTER, "what is written to overlaps something else")
        );
    };
    // SAFETY: live handles, and memory that is live and of the stated length.
    unsafe {
        // The norm inside a gradient.
        let mut grad = [2.0f64; 4];
        let t = tensor(&mut grad, BITSTEP_F64, &[0.0f32; 0], 0);
        let norm = t.data.cast::<f64>().add(1);
        expect(&mut |e| bitstep_clip_grad_norm(&t, 1, 1.0, 2.0, 0, norm, e));
        assert_eq!(grad, [2.0; 4]);

        // Data over the list of tensors, or over the names of extra arguments.
        let mut list = [[0u64; 16]; 1];
        let at: *mut Tensor = list.as_mut_ptr().cast();
        let mut its = tensor(&mut [0f32; 4], BITSTEP_F32, &[0f32; 4], BITSTEP_F32);
        (its.data, its.grad) = (at.cast(), null());
        at.write(its);
        expect(&mut |e| bitstep_optimizer_step(o, at, 1, null(), 0, e));
        expect(&mut |e| bitstep_optimizer_eval(o, at, 1, e));
        expect(&mut |e| bitstep_clip_grad_norm(at, 1, 1.0, 2.0, 0, &mut 0.0, e));
        let grok = optimizer("grokadamw", "", &[4], BITSTEP_F32);
        let mut name = *b"train_loss\0\0\0\0\0\0";
        let given = NamedNumber { name: name.as_ptr().cast::<c_char>(), value: 1.0 };
        let over = Tensor { data: name.as_mut_ptr().cast::<c_void>(), len: 4, ..its };
        let over = Tensor { data: over.data.map_addr(|a| a.next_multiple_of(4)), len: 1, ..over };
        let two = optimizer("grokadamw", "", &[1], BITSTEP_F32);
        expect(&mut |e| bitstep_optimizer_step(two, &over, 1, &given, 1, e));

        // The shape, or the tensor itself, inside a rule's memory.
        let (mut x, g) = ([1.0f32; 4], [1.0f32; 4]);
        let t = tensor(&mut x, BITSTEP_F32, &g, BITSTEP_F32);
        let mut size = 0;
        well(|e| bitstep_rule_state_size(r, [4].as_ptr(), 1, BITSTEP_F32, &mut size, e));
        let mut memory = vec![0u64; size / 8];
        memory[9] = 4;
        let start: *mut u64 = memory.as_mut_ptr();
        let shape = start.add(9).cast::<usize>();
        expect(&mut |e| bitstep_rule_step(r, 0.1, &t, shape, 1, start.cast(), size, null(), 0, e));
        assert!(memory.iter().enumerate().all(|(i, &x)| x == if i == 9 { 4 } else { 0 }));
        assert_eq!(x, [1.0; 4]);

        // Outputs inside memory that is read.
        let mut words = [4usize, 1];
        let inside: *mut usize = words.as_mut_ptr();
        expect(&mut |e| bitstep_rule_state_size(r, inside, 2, BITSTEP_F32, inside.add(1), e));
        let mut name = [0u64; 4];
        let bytes = name.as_mut_ptr().cast::<u8>();
        bytes.copy_from_nonoverlapping(c"adamw_torch".as_ptr().cast(), 12);
        let group: *mut usize = name.as_mut_ptr().cast();
        expect(&mut |e| bitstep_optimizer_add_group(o, bytes.cast(), null(), group, e));
        expect(&mut |e| bitstep_rule_new(bytes.cast(), null(), bytes.cast(), e));
        // Inside a handle itself.
        expect(&mut |e| bitstep_optimizer_lr(o, 0, o.cast(), e));
        expect(&mut |e| bitstep_schedule_lr(s, 0, s.cast(), e));
        let all = saved(o);
        expect(&mut |e| bitstep_optimizer_save(o, o.cast(), 8, e));
        assert_eq!(saved(o), all);

        // A message is not written over anything else.
        let mut grad = [3.0f64; 64];
        let t = tensor(&mut grad, BITSTEP_F64, &[0.0f32; 0], 0);
        let inside = t.data.cast::<ErrorMessage>();
        let twice = [t, t];
        let status = bitstep_clip_grad_norm(twice.as_ptr(), 2, 1.0, 2.0, 0, &mut 0.0, inside);
        assert_eq!((status, grad), (BITSTEP_POINTER, [3.0; 64]));

        bitstep_schedule_free(s);
        bitstep_rule_free(r);
        for o in [o, grok, two] {
            bitstep_optimizer_free(o);
        }
    }
}

#[test]
fn pointer_that_is_not_aligned_is_refused() {
    let o = optimizer("adamw_torch", "", &[1], BITSTEP_F32);
    let r = rule("adamw_torch", "").expect("a rule");
    let s = schedule("constant", "");
    let name = text("adamw_torch");
    let mut memory = [0u64; 64];
    let odd = memory.as_mut_ptr().cast::<u8>().wrapping_add(1);
    let (mut x, shape, mut size, mut made) = ([1f32], [1usize], 0usize, null_mut::<Rule>());
    let t = tensor(&mut x, BITSTEP_F32, &[1f32], BITSTEP_F32);
    let expect = |f: &mut dyn FnMut(*mut ErrorMessage) -> i32| {
        let (status, message) = call(f);
        assert_eq!(status, BITSTEP_POINTER);
        assert!(message.contains("not aligned"), "{message}");
    };
    // SAFETY: live handles and memory; misalignment is what is tested.
    unsafe {
        expect(&mut |e| bitstep_optimizer_new(odd.cast(), e));
        expect(&mut |e| bitstep_optimizer_add_group(o, name.as_ptr(), null(), odd.cast(), e));
        let numbers = odd.cast::<NamedNumber>();
        let name = name.as_ptr();
        expect(&mut |e| bitstep_optimizer_add_group_of(o, name, numbers, 1, &mut size, e));
        expect(&mut |e| bitstep_optimizer_add_param(o, 0, odd.cast(), 1, BITSTEP_F32, e));
        expect(&mut |e| bitstep_optimizer_lr(o, 0, odd.cast(), e));
        expect(&mut |e| bitstep_optimizer_lr(o.byte_add(1), 0, &mut 0.0, e));
        expect(&mut |e| bitstep_optimizer_step(o, odd.cast(), 1, null(), 0, e));
        expect(&mut |e| bitstep_optimizer_step(o, &t, 1, numbers, 1, e));
        expect(&mut |e| bitstep_optimizer_eval(o, odd.cast(), 1, e));
        expect(&mut |e| bitstep_optimizer_state_size(o, odd.cast(), e));
        expect(&mut |e| bitstep_optimizer_save_size(o, odd.cast(), e));
        expect(&mut |e| bitstep_clip_grad_norm(&t, 1, 1.0, 2.0, 0, odd.cast(), e));
        expect(&mut |e| bitstep_clip_grad_norm(odd.cast(), 1, 1.0, 2.0, 0, &mut 0.0, e));
        expect(&mut |e| bitstep_rule_new(name, null(), odd.cast(), e));
        expect(&mut |e| bitstep_rule_state_size(r, odd.cast(), 1, 1, &mut size, e));
        expect(&mut |e| bitstep_rule_state_size(r, shape.as_ptr(), 1, 1, odd.cast(), e));
        for (t, shape, memory) in [
            (odd.cast_const().cast(), shape.as_ptr(), memory.as_mut_ptr().cast()),
            (&raw const t, odd.cast(), memory.as_mut_ptr().cast()),
            (&raw const t, shape.as_ptr(), odd.cast()),
        ] {
            expect(&mut |e| bitstep_rule_step(r, 0.1, t, shape, 1, memory, 64, null(), 0, e));
        }
        for (data, grad) in [(odd.cast(), t.grad), (t.data, odd.cast_const().cast())] {
            let t = Tensor { data, grad, ..t };
            expect(&mut |e| bitstep_optimizer_step(o, &t, 1, null(), 0, e));
        }
        let constant = text("constant");
        expect(&mut |e| bitstep_schedule_new(constant.as_ptr(), null(), odd.cast(), e));
        expect(&mut |e| bitstep_schedule_step(s, odd.cast(), 1, e));
        expect(&mut |e| bitstep_schedule_lr(s, 0, odd.cast(), e));
        expect(&mut |e| bitstep_schedule_save_size(s, odd.cast(), e));
        assert_eq!((memory, x, size, made), ([0; 64], [1.0], 0, null_mut()));
        made = r;
        bitstep_rule_free(made);
        bitstep_schedule_free(s);
        bitstep_optimizer_free(o);
    }
}

#[test]
fn state_of_anything_else_is_refused() {
    let makes: [&dyn Fn() -> *mut Optimizer; 6] = [
        &|| optimizer("adamw_torch", "", &[2, 3], BITSTEP_F32),
        // The same slots under another name, another shape, another type, another number of parameters.
        &|| optimizer("adam", "", &[2, 3], BITSTEP_F32),
        &|| optimizer("adamw_torch", "", &[3, 2], BITSTEP_F32),
        &|| optimizer("adamw_torch", "", &[6], BITSTEP_F32),
        &|| optimizer("adamw_torch", "", &[2, 3], BITSTEP_F64),
        &|| optimizer("adamw_torch", "amsgrad=True", &[2, 3], BITSTEP_F32),
    ];
    // SAFETY: live handles, and memory of the stated length.
    unsafe {
        let (a, mut x) = (makes[0](), [1f32; 6]);
        let t = tensor(&mut x, BITSTEP_F32, &[1f32; 6], BITSTEP_F32);
        well(|e| bitstep_optimizer_step(a, &t, 1, null(), 0, e));
        let state = saved(a);
        let load =
            |o, bytes: &[u8]| call(|e| bitstep_optimizer_load(o, bytes.as_ptr(), bytes.len(), e)).0;
        for (i, make) in makes.iter().enumerate() {
            let b = make();
            let before = saved(b);
            for (bytes, status) in [
                (state.as_slice(), if i == 0 { BITSTEP_OK } else { BITSTEP_STATE }),
                (&state[..state.len() - 1], BITSTEP_STATE),
                (&[state.as_slice(), &[0]].concat(), BITSTEP_STATE),
            ] {
                assert_eq!(load(b, bytes), status, "{i}");
                if status == BITSTEP_OK {
                    assert_eq!(saved(b), state);
                    assert_eq!(load(b, &before), BITSTEP_OK);
                }
                assert_eq!(saved(b), before, "{i}: something was written");
            }
            // Any length, and any byte of the part that identifies the state, may be wrong.
            for at in 0..state.len() {
                assert_eq!(load(b, &state[..at]), BITSTEP_STATE, "{i}: cut at {at}");
                let mut other = state.clone();
                other[at] ^= 0xff;
                assert_eq!(load(b, &other), BITSTEP_STATE, "{i}: byte {at}");
                assert_eq!(saved(b), before, "{i}: byte {at}");
            }
            bitstep_optimizer_free(b);
        }
        bitstep_optimizer_free(a);

        let (a, b) = (
            schedule("constant", ""),
            schedule("linear", "num_warmup_steps=1, num_training_steps=2"),
        );
        let mut size = 0;
        well(|e| bitstep_schedule_save_size(a, &mut size, e));
        let mut memory = vec![0; size];
        well(|e| bitstep_schedule_save(a, memory.as_mut_ptr(), size, e));
        well(|e| bitstep_schedule_load(a, memory.as_ptr(), size, e));
        let (status, message) = call(|e| bitstep_schedule_load(b, memory.as_ptr(), size, e));
        assert_eq!(
            (status, message.as_str()),
            (BITSTEP_STATE, "saved state: wanted a schedule of the same name")
        );
        bitstep_schedule_free(a);
        bitstep_schedule_free(b);
    }
}

#[test]
fn rates_and_given_numbers_that_mean_nothing_are_refused() {
    let o = optimizer("adamw_torch", "", &[1], BITSTEP_F32);
    let grok = optimizer("grokadamw", "", &[1], BITSTEP_F32);
    let r = rule("adamw_torch", "").expect("a rule");
    let mut x = [1f32];
    let t = tensor(&mut x, BITSTEP_F32, &[1f32], BITSTEP_F32);
    let (loss, unknown) = (text("train_loss"), text("tran_loss"));
    let [loss, unknown] = [&loss, &unknown].map(|s| NamedNumber { name: s.as_ptr(), value: 1.0 });
    // SAFETY: live handles, and live tensors and numbers.
    unsafe {
        let mut size = 0;
        well(|e| bitstep_rule_state_size(r, [1].as_ptr(), 1, BITSTEP_F32, &mut size, e));
        let mut memory = vec![0u64; size / 8];
        let mut step = |lr, given: &[NamedNumber]| {
            let (list, count) = (given.as_ptr(), given.len());
            let memory = memory.as_mut_ptr().cast();
            call(|e| bitstep_rule_step(r, lr, &t, [1].as_ptr(), 1, memory, size, list, count, e))
        };
        for lr in [f64::NAN, -1e-3, f64::NEG_INFINITY] {
            let (status, message) = call(|e| bitstep_optimizer_set_lr(o, 0, lr, e));
            assert_eq!(status, BITSTEP_ARGUMENT, "{message}");
            assert_eq!(step(lr, &[]).0, BITSTEP_ARGUMENT);
        }
        let (status, message) = step(0.1, &[loss]);
        assert_eq!(
            (status, message.as_str()),
            (BITSTEP_ARGUMENT, "given: nothing listens to `train_loss`")
        );
        let steps = |o, given: &[NamedNumber]| {
            call(|e| bitstep_optimizer_step(o, &t, 1, given.as_ptr(), given.len(), e)).0
        };
        assert_eq!(steps(o, &[loss]), BITSTEP_ARGUMENT);
        assert_eq!(steps(grok, &[unknown]), BITSTEP_ARGUMENT);
        assert_eq!(steps(grok, &[loss, loss]), BITSTEP_ARGUMENT);
        let mut lr = 0.0;
        well(|e| bitstep_optimizer_lr(o, 0, &mut lr, e));
        assert_eq!((lr, x, memory.iter().all(|&m| m == 0)), (1e-3, [1.0], true));
        assert_eq!(steps(grok, &[loss]), BITSTEP_OK);
        for o in [o, grok] {
            bitstep_optimizer_free(o);
        }
        bitstep_rule_free(r);
    }
}

/// Every rule that accepts the caller's memory gives the bits of an optimizer of that one parameter; the
/// others are refused.
#[test]
fn rule_steps_as_an_optimizer_does_or_is_refused() {
    let (mut refused, mut taken) = (Vec::new(), 0);
    for entry in bitstep::registry::OPTIMIZERS {
        for (arguments, shape) in [("", &[6usize, 4][..]), ("rank=2", &[6, 4])] {
            let r = match rule(entry.name, arguments) {
                Ok(r) => r,
                Err((status, message)) => {
                    assert_eq!(status, BITSTEP_ARGUMENT, "{message}");
                    if message.contains("take an optimizer") {
                        refused.push((entry.name, arguments));
                    } else {
                        assert!(!arguments.is_empty(), "{}: {message}", entry.name);
                    }
                    continue;
                }
            };
            taken += 1;
            let o = optimizer(entry.name, arguments, shape, BITSTEP_F32);
            // SAFETY: live handles, and memory that is live and of the stated length.
            unsafe {
                let mut size = 0;
                let dims = shape.len();
                well(|e| bitstep_rule_state_size(r, shape.as_ptr(), dims, 1, &mut size, e));
                let mut memory = vec![0u64; size / 8];
                let start: Vec<f32> = (0..24).map(|i| i as f32 / 8.0 - 1.25).collect();
                let (mut x, mut y) = (start.clone(), start);
                for t in 0..6u16 {
                    let grad: Vec<f32> =
                        (0..24u16).map(|i| f32::from((i * 7 + t * 5) % 13) - 6.5).collect();
                    let mut lr = 0.0;
                    well(|e| bitstep_optimizer_lr(o, 0, &mut lr, e));
                    // Some steps have no gradient, the first one among them.
                    let no_grad = t % 3 == 0;
                    let [mut a, mut b] =
                        [&mut x, &mut y].map(|x| tensor(x, BITSTEP_F32, &grad, BITSTEP_F32));
                    if no_grad {
                        (a.grad, b.grad) = (null(), null());
                    }
                    let place = memory.as_mut_ptr().cast();
                    let shape = shape.as_ptr();
                    well(|e| bitstep_rule_step(r, lr, &a, shape, dims, place, size, null(), 0, e));
                    well(|e| bitstep_optimizer_step(o, &b, 1, null(), 0, e));
                    let [a, b] =
                        [&x, &y].map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
                    assert_eq!(a, b, "{} {arguments}: step {t}", entry.name);
                }
                bitstep_rule_free(r);
                bitstep_optimizer_free(o);
            }
        }
    }
    assert!(taken >= 70, "{taken}");
    // The norm over all gradients, the index in the group, a seed per parameter.
    for name in ["grokadamw", "apollo_adamw"] {
        assert!(refused.iter().any(|(refused, _)| *refused == name), "{name}: {refused:?}");
    }
    assert!(rule("grokadamw", "gamma=0").is_ok(), "without gamma layers are alike");
    for name in ["lomo", "adalomo"] {
        assert_eq!(rule(name, "clip_grad_norm=1.0").expect_err("a norm").0, BITSTEP_ARGUMENT);
    }
    let r = rule("lomo", "").expect("no norm");
    let (mut x, scale) = ([1f32], text("loss_scale"));
    let t = tensor(&mut x, BITSTEP_F32, &[1f32], BITSTEP_F32);
    let scale = NamedNumber { name: scale.as_ptr(), value: 2.0 };
    // SAFETY: a live handle, and memory that is live and of the stated length.
    unsafe {
        let mut size = 0;
        well(|e| bitstep_rule_state_size(r, [1].as_ptr(), 1, BITSTEP_F32, &mut size, e));
        let mut memory = vec![0u64; size / 8];
        let place = memory.as_mut_ptr().cast();
        let step = |e| bitstep_rule_step(r, 0.1, &t, [1].as_ptr(), 1, place, size, &scale, 1, e);
        assert_eq!(call(step).0, BITSTEP_ARGUMENT);
        assert_eq!(x, [1.0]);
        bitstep_rule_free(r);
    }
}

#[test]
fn long_names_and_texts_are_refused_soon() {
    let (long, mut group) = (text(&"x".repeat(1 << 26)), 7);
    let o = optimizer("adamw_torch", "", &[1], BITSTEP_F32);
    let name = text("adamw_torch");
    // SAFETY: a live handle and strings.
    unsafe {
        for (name, arguments) in [(long.as_ptr(), null()), (name.as_ptr(), long.as_ptr())] {
            let (status, message) =
                call(|e| bitstep_optimizer_add_group(o, name, arguments, &mut group, e));
            assert_eq!((status, group), (BITSTEP_ARGUMENT, 7));
            assert!(message.contains("too long: 67108864 bytes"), "{message}");
        }
        let number = NamedNumber { name: long.as_ptr(), value: 1.0 };
        let (status, _) =
            call(|e| bitstep_optimizer_add_group_of(o, name.as_ptr(), &number, 1, &mut group, e));
        assert_eq!(status, BITSTEP_ARGUMENT);
        let many = vec![NamedNumber { name: name.as_ptr(), value: 1.0 }; 1025];
        let of = bitstep_optimizer_add_group_of;
        let (status, _) = call(|e| of(o, name.as_ptr(), many.as_ptr(), 1025, &mut group, e));
        assert_eq!(status, BITSTEP_LENGTH);
        bitstep_optimizer_free(o);
    }
}
