//! What Rust reaches, C reaches: state by slots and entries, arguments, steps in parts and on threads, gradients,
//! schedules and trainings, each held to what the core or another call gives.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};

use bitstep::registry::OPTIMIZERS;
use bitstep_capi::*;

/// A call's status and message.
fn call(f: impl FnOnce(*mut ErrorMessage) -> i32) -> (i32, String) {
    let mut error = ErrorMessage { message: [0; 256] };
    let status = f(&mut error);
    let text = error.message.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    (status, String::from_utf8(text).expect("a message in UTF-8"))
}

#[track_caller]
fn well(f: impl FnOnce(*mut ErrorMessage) -> i32) {
    assert_eq!(call(f), (BITSTEP_OK, String::new()));
}

#[track_caller]
fn refused(status: i32, of: &str, f: impl FnOnce(*mut ErrorMessage) -> i32) {
    let (got, message) = call(f);
    assert!(got == status && message.contains(of), "{got}: {message}, not `{of}`");
}

fn text(s: &str) -> CString {
    CString::new(s).expect("no 0 within")
}

/// What a call writes as text.
fn written(f: impl Fn(*mut c_char, usize, *mut usize, *mut ErrorMessage) -> i32) -> String {
    let mut needed = 0;
    well(|e| f(null_mut(), 0, &mut needed, e));
    let mut memory = vec![0u8; needed];
    refused(BITSTEP_LENGTH, "are needed", |e| {
        f(memory.as_mut_ptr().cast(), needed - 1, &mut needed, e)
    });
    assert!(memory.iter().all(|&byte| byte == 0));
    well(|e| f(memory.as_mut_ptr().cast(), memory.len(), &mut needed, e));
    let read = CStr::from_bytes_with_nul(&memory).expect("a 0 at the end");
    read.to_str().expect("UTF-8").to_owned()
}

fn name(text: &[c_char; 64]) -> String {
    text.iter().take_while(|&&c| c != 0).map(|&c| char::from(c as u8)).collect()
}

struct Run {
    optimizer: *mut Optimizer,
    values: Vec<Vec<f32>>,
}

const SHAPES: [&[usize]; 3] = [&[6, 4], &[300], &[8, 40]];

impl Run {
    fn new(optimizer: &str, arguments: &str) -> Option<Run> {
        let (optimizer, arguments) = (text(optimizer), text(arguments));
        let (mut made, mut group) = (null_mut(), 7);
        // SAFETY: live strings and outputs.
        unsafe {
            well(|e| bitstep_optimizer_new(&mut made, e));
            let (of, with) = (optimizer.as_ptr(), arguments.as_ptr());
            let added = bitstep_optimizer_add_group(made, of, with, &mut group, null_mut());
            let mut run = Run { optimizer: made, values: Vec::new() };
            if added != BITSTEP_OK {
                return None;
            }
            for shape in SHAPES {
                let (dims, rank) = (shape.as_ptr(), shape.len());
                // Some rules are for matrices only.
                let add = |e| bitstep_optimizer_add_param(made, 0, dims, rank, BITSTEP_F32, e);
                if call(add).0 == BITSTEP_OK {
                    let len = shape.iter().product::<usize>();
                    run.values.push((0..len).map(|i| (i as f32 - 20.0) / 16.0).collect());
                }
            }
            Some(run)
        }
    }

    fn grads(&self, t: usize) -> Vec<Vec<f32>> {
        let grad =
            |v: &Vec<f32>| (0..v.len()).map(|i| ((i * 7 + t * 5) % 13) as f32 - 6.5).collect();
        self.values.iter().map(grad).collect()
    }

    /// Calls `f` with the tensors of step t; the last parameter has no gradient in every third.
    fn with<T>(&mut self, t: usize, f: impl FnOnce(*mut Optimizer, &[Tensor]) -> T) -> T {
        let grads = self.grads(t);
        let mut tensors = Vec::new();
        for (value, grad) in self.values.iter_mut().zip(&grads) {
            tensors.push(tensor(value, grad));
        }
        if t % 3 == 2 && tensors.len() > 1 {
            tensors.last_mut().expect("one").grad = null();
        }
        f(self.optimizer, &tensors)
    }

    fn step(&mut self, t: usize) {
        self.with(t, |o, all| {
            // SAFETY: a live handle and tensors.
            well(|e| unsafe { bitstep_optimizer_step(o, all.as_ptr(), all.len(), null(), 0, e) });
        });
    }

    fn saved(&self) -> Vec<u8> {
        let mut size = 0;
        // SAFETY: a live handle, and memory of the stated length.
        unsafe {
            well(|e| bitstep_optimizer_save_size(self.optimizer, &mut size, e));
            let mut memory = vec![0; size];
            well(|e| bitstep_optimizer_save(self.optimizer, memory.as_mut_ptr(), size, e));
            memory
        }
    }

    fn bits(&self) -> Vec<u32> {
        self.values.iter().flatten().map(|x| x.to_bits()).collect()
    }

    fn param(&self, param: usize) -> ParamInfo {
        let mut info = std::mem::MaybeUninit::uninit();
        // SAFETY: a live handle and output, which the call has written when it succeeds.
        unsafe {
            well(|e| bitstep_optimizer_param(self.optimizer, param, info.as_mut_ptr(), e));
            info.assume_init()
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // SAFETY: a live handle, not used afterwards.
        unsafe { bitstep_optimizer_free(self.optimizer) };
    }
}

fn tensor(value: &mut [f32], grad: &[f32]) -> Tensor {
    let grad = if grad.is_empty() { null() } else { grad.as_ptr().cast() };
    let len = value.len();
    let data = value.as_mut_ptr().cast();
    Tensor { data, len, dtype: BITSTEP_F32, grad_dtype: BITSTEP_F32, grad }
}

#[test]
fn version_and_names_are_the_librarys() {
    // SAFETY: a static string, live outputs.
    unsafe {
        let version = CStr::from_ptr(bitstep_version()).to_str().expect("UTF-8");
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        let mut one = Name { text: [0; 64] };
        for (i, entry) in OPTIMIZERS.iter().enumerate() {
            well(|e| bitstep_optimizer_name_at(i, &mut one, e));
            assert_eq!(name(&one.text), entry.name);
            // Whatever is listed is accepted.
            let of = text(entry.name);
            let defaults =
                written(|t, n, needed, e| bitstep_optimizer_defaults(of.as_ptr(), t, n, needed, e));
            assert!(Run::new(entry.name, &defaults).is_some(), "{}: {defaults}", entry.name);
        }
        for (i, of) in bitstep::schedule::NAMES.iter().enumerate() {
            well(|e| bitstep_schedule_name_at(i, &mut one, e));
            assert_eq!(name(&one.text), *of);
        }
        assert_eq!(bitstep_optimizer_count(), OPTIMIZERS.len());
        assert_eq!(bitstep_schedule_count(), bitstep::schedule::NAMES.len());
        refused(BITSTEP_LENGTH, "index", |e| bitstep_optimizer_name_at(1 << 20, &mut one, e));
        refused(BITSTEP_LENGTH, "index", |e| bitstep_schedule_name_at(1 << 20, &mut one, e));
        let cosine = written(|t, n, needed, e| {
            bitstep_schedule_defaults(c"cosine".as_ptr(), t, n, needed, e)
        });
        let want =
            "{\"num_warmup_steps\": null, \"num_training_steps\": null, \"num_cycles\": 0.5}";
        assert_eq!(cosine, want);
        let mut needed = 0;
        refused(BITSTEP_ARGUMENT, "did you mean `cosine`", |e| {
            bitstep_schedule_defaults(c"cosin".as_ptr(), null_mut(), 0, &mut needed, e)
        });
    }
}

/// For every name: state that is copied entry by entry, to an optimizer that has made no step, continues with the same
/// bits, and so do the other ways to make a step.
#[test]
fn state_copied_by_entries_and_steps_in_parts_give_the_same_bits() {
    let mut compared = 0;
    for entry in OPTIMIZERS {
        for arguments in ["", "rank=2", "min_8bit_size=0"] {
            let Some(mut a) = Run::new(entry.name, arguments) else { continue };
            let fresh = || Run::new(entry.name, arguments).expect("as before");
            (0..4).for_each(|t| a.step(t));
            let mut b = fresh();
            copy_state(&a, &mut b);
            assert_eq!(a.saved(), b.saved(), "{} {arguments}", entry.name);

            let mut copy = null_mut();
            // SAFETY: a live handle and output.
            well(|e| unsafe { bitstep_optimizer_clone(a.optimizer, &mut copy, e) });
            let clone = Run { optimizer: copy, values: a.values.clone() };
            let [mut parts, mut threads, mut tasks, mut clone] = [fresh(), fresh(), fresh(), clone];
            for run in [&mut parts, &mut threads, &mut tasks] {
                copy_state(&a, run);
            }
            for t in 4..7 {
                a.step(t);
                b.step(t);
                clone.step(t);
                in_parts(&mut parts, t);
                threads.with(t, |o, all| {
                    let (list, n) = (all.as_ptr(), all.len());
                    // SAFETY: a live handle and tensors.
                    well(|e| unsafe {
                        bitstep_optimizer_step_threads(o, list, n, null(), 0, 1 + t % 2, e)
                    });
                });
                tasks.with(t, |o, all| {
                    let (list, n, run) = (all.as_ptr(), all.len(), Some(scattered as RunTasks));
                    let mut calls = 0usize;
                    let context = (&raw mut calls).cast();
                    // SAFETY: a live handle and tensors; `scattered` keeps to the rules.
                    well(|e| unsafe {
                        bitstep_optimizer_step_tasks(o, list, n, null(), 0, 64, run, context, e)
                    });
                    assert_eq!(calls, 1);
                });
            }
            let want = (a.bits(), a.saved());
            for (other, what) in [
                (&b, "entries"),
                (&clone, "clone"),
                (&parts, "one by one"),
                (&threads, "threads"),
                (&tasks, "tasks"),
            ] {
                assert_eq!(
                    (other.bits(), other.saved()),
                    want,
                    "{} {arguments}: {what}",
                    entry.name
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 5 * OPTIMIZERS.len(), "{compared}");
}

type RunTasks = unsafe extern "C" fn(
    *mut c_void,
    usize,
    unsafe extern "C" fn(*const c_void, usize),
    *const c_void,
);

/// Runs some tasks on other threads, some twice, some that there are not, and leaves some out.
unsafe extern "C" fn scattered(
    context: *mut c_void,
    count: usize,
    task: unsafe extern "C" fn(*const c_void, usize),
    tasks: *const c_void,
) {
    struct Shared(*const c_void);
    // SAFETY: tasks may be shared between threads.
    unsafe impl Sync for Shared {}
    // SAFETY: the context that the test passed.
    unsafe { *context.cast::<usize>() += 1 };
    let shared = &Shared(tasks);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                let Shared(tasks) = *shared;
                for i in (0..count).rev().filter(|i| i % 4 != 3 && (i % 2 == thread || i % 5 == 0))
                {
                    // SAFETY: the tasks of this step, which has not ended.
                    unsafe { task(tasks, i) };
                }
                // SAFETY: as above; there is no such task.
                unsafe { task(tasks, usize::MAX - thread) };
            });
        }
    });
}

fn in_parts(run: &mut Run, t: usize) {
    run.with(t, |o, all| {
        // SAFETY: a live handle and tensors.
        unsafe {
            well(|e| bitstep_optimizer_begin(o, all.as_ptr(), all.len(), null(), 0, e));
            let mut index = 0;
            for (i, tensor) in all.iter().enumerate() {
                well(|e| bitstep_optimizer_step_param(o, i, tensor, index, null(), 0, e));
                index += u32::from(!tensor.grad.is_null());
            }
        }
    });
}

fn copy_state(from: &Run, to: &mut Run) {
    to.values.clone_from(&from.values);
    let (a, b) = (from.optimizer, to.optimizer);
    let (mut groups, mut params, mut steps) = (0, 0, 0);
    // SAFETY: live handles and outputs, memory of the stated lengths.
    unsafe {
        well(|e| bitstep_optimizer_sizes(a, &mut groups, &mut params, e));
        assert_eq!((groups, params), (1, from.values.len()));
        well(|e| bitstep_optimizer_group_steps(a, 0, &mut steps, e));
        well(|e| bitstep_optimizer_set_group_steps(b, 0, steps, e));
        for p in 0..params {
            let info = from.param(p);
            assert_eq!(info.len, from.values[p].len());
            well(|e| bitstep_optimizer_set_param_steps(b, p, info.steps, info.started, e));
            for k in 0..info.entries {
                let mut entry = std::mem::zeroed::<StateEntry>();
                well(|e| bitstep_optimizer_entry(a, p, k, &mut entry, e));
                let mut shape = vec![0; entry.dimensions];
                let dims = shape.as_mut_ptr();
                well(|e| bitstep_optimizer_entry_shape(a, p, k, dims, entry.dimensions, e));
                assert_eq!(shape.iter().product::<usize>(), entry.len, "{}", name(&entry.key));
                let mut bytes = vec![0u8; entry.size + 1];
                well(|e| bitstep_optimizer_entry_read(a, p, k, bytes.as_mut_ptr(), entry.size, e));
                well(|e| bitstep_optimizer_entry_write(b, p, k, bytes.as_ptr(), entry.size, e));
                refused(BITSTEP_LENGTH, "", |e| {
                    bitstep_optimizer_entry_write(b, p, k, bytes.as_ptr(), entry.size + 1, e)
                });
            }
            refused(BITSTEP_ARGUMENT, "entry", |e| {
                bitstep_optimizer_entry_read(a, p, info.entries, null_mut(), 0, e)
            });
        }
        refused(BITSTEP_ARGUMENT, "param", |e| {
            bitstep_optimizer_set_param_steps(b, params, 0, 0, e)
        });
    }
}

#[test]
fn slots_are_read_and_written_in_any_type_under_their_names() {
    let mut run = Run::new("flash_adamw", "").expect("an optimizer");
    run.step(0);
    let o = run.optimizer;
    let (mut slot, mut info) = (9, std::mem::MaybeUninit::<Slot>::uninit());
    // SAFETY: live handles and outputs, memory of the stated lengths.
    unsafe {
        well(|e| bitstep_optimizer_find_slot(o, 1, c"exp_avg".as_ptr(), &mut slot, e));
        well(|e| bitstep_optimizer_slot(o, 1, slot, info.as_mut_ptr(), e));
        let info = info.assume_init();
        assert_eq!(
            (name(&info.name), name(&info.format)),
            ("exp_avg".into(), "companded:momentum".into())
        );
        assert_eq!((info.len, info.dimensions), (300, 1));
        let (mut x, mut y) = ([0.0f64; 300], [0.0f32; 300]);
        let to = Tensor {
            data: x.as_mut_ptr().cast(),
            len: 300,
            dtype: BITSTEP_F64,
            grad_dtype: 0,
            grad: null(),
        };
        well(|e| bitstep_optimizer_slot_read(o, 1, slot, &to, e));
        well(|e| bitstep_optimizer_slot_read(o, 1, slot, &tensor(&mut y, &[]), e));
        let grads = run.grads(0);
        for ((x, y), g) in x.iter().zip(&y).zip(&grads[1]) {
            // A tenth of the gradient, as near as 8 bits of a group whose largest is 0.65 are.
            assert!(*x == f64::from(*y) && (x - 0.1 * f64::from(*g)).abs() < 0.02, "{x} {g}");
        }
        let all = [0.5f32; 300];
        well(|e| {
            bitstep_optimizer_slot_write(o, 1, slot, all.as_ptr().cast(), 300, BITSTEP_F32, e)
        });
        well(|e| bitstep_optimizer_slot_read(o, 1, slot, &tensor(&mut y, &[]), e));
        assert_eq!(y, [0.5; 300]);

        let before = run.saved();
        let of = all.as_ptr().cast();
        refused(BITSTEP_LENGTH, "values", |e| {
            bitstep_optimizer_slot_write(o, 1, slot, of, 299, BITSTEP_F32, e)
        });
        refused(BITSTEP_ARGUMENT, "dtype", |e| {
            bitstep_optimizer_slot_write(o, 1, slot, of, 300, BITSTEP_U8, e)
        });
        refused(BITSTEP_ARGUMENT, "slot: 7", |e| {
            bitstep_optimizer_slot_write(o, 1, 7, of, 300, BITSTEP_F32, e)
        });
        refused(BITSTEP_ARGUMENT, "exp_avg", |e| {
            bitstep_optimizer_find_slot(o, 1, c"exp".as_ptr(), &mut slot, e)
        });
        assert_eq!(run.saved(), before);
    }
}

#[test]
fn arguments_change_in_mid_run_and_what_is_refused_changes_nothing() {
    let mut run = Run::new("adamw_torch", "lr=0.5, betas=[0.8, 0.95]").expect("an optimizer");
    run.step(0);
    let o = run.optimizer;
    // SAFETY: live handles, strings and outputs.
    unsafe {
        let arguments =
            || written(|t, n, needed, e| bitstep_optimizer_arguments(o, 0, t, n, needed, e));
        let before = arguments();
        assert!(
            before.starts_with("{\"lr\": 0.5, \"betas\": [0.8, 0.95], \"eps\": 1e-8"),
            "{before}"
        );
        for (change, of) in [
            (c"{\"lr\": -1}", "lr"),
            (c"weight_decy=1", "did you mean `weight_decay`"),
            (c"lr=0.1, betas=[2, 0.5]", "beta"),
            (c"{\"lr\": ", "arguments"),
        ] {
            refused(BITSTEP_ARGUMENT, of, |e| {
                bitstep_optimizer_set_arguments(o, 0, change.as_ptr(), e)
            });
            assert_eq!(arguments(), before);
        }
        well(|e| bitstep_optimizer_set_arguments(o, 0, c"lr=0.25, weight_decay=0.125".as_ptr(), e));
        let (after, mut lr) = (arguments(), 0.0);
        assert!(
            after.contains("\"lr\": 0.25") && after.contains("\"weight_decay\": 0.125"),
            "{after}"
        );
        well(|e| bitstep_optimizer_lr(o, 0, &mut lr, e));
        assert_eq!(lr, 0.25);
        refused(BITSTEP_ARGUMENT, "group", |e| bitstep_optimizer_set_arguments(o, 1, null(), e));
    }
}

#[test]
fn storage_and_weights_are_arguments_too() {
    let both = "{\"storage\": {\"exp_avg\": \"companded:momentum\", \"exp_avg_sq\": \"scaled8:unsigned:256\"}, \"weights\": \"split:8\"}";
    let mut run = Run::new("radam", both).expect("an optimizer");
    run.step(0);
    let mut size = 0;
    // SAFETY: a live handle and output.
    well(|e| unsafe { bitstep_optimizer_state_size(run.optimizer, &mut size, e) });
    let companded = |n: usize| n + 2 * n.div_ceil(32);
    let scaled = |n: usize| n + 4 * n.div_ceil(256);
    assert_eq!(size, [24, 300, 320].iter().map(|&n| companded(n) + scaled(n)).sum::<usize>());
    for refused in [
        "storage=companded",
        "storage=f8",
        "weights=split:9",
        "{\"storage\": {\"exp_avgs\": \"f32\"}}",
        "{\"storage\": 8}",
        "{\"weights\": true}",
    ] {
        assert!(Run::new("radam", refused).is_none(), "{refused}");
    }
    // Half the state of `f32`, by one word.
    let run = Run::new("adamw_torch", "storage=bf16").expect("an optimizer");
    // SAFETY: the handle is alive, and what is pointed to outlives the call.
    well(|e| unsafe { bitstep_optimizer_state_size(run.optimizer, &mut size, e) });
    assert_eq!(size, 2 * 2 * (24 + 300 + 320));
}

#[test]
fn error_names_the_parameter() {
    let mut run = Run::new("sgd", "").expect("an optimizer");
    run.with(0, |o, all| {
        let mut all = all.to_vec();
        all[1].len = 299;
        // SAFETY: a live handle and tensors.
        let step = |all: &[Tensor]| {
            // SAFETY: the handle is alive, and what is pointed to outlives the call.
            call(|e| unsafe { bitstep_optimizer_step(o, all.as_ptr(), 3, null(), 0, e) })
        };
        assert_eq!(
            step(&all),
            (BITSTEP_LENGTH, "tensors[1]: 299 numbers, but the parameter has 300".into())
        );
        (all[1].len, all[2].dtype) = (300, BITSTEP_BF16);
        assert_eq!(
            step(&all),
            (BITSTEP_ARGUMENT, "tensors[2]: not f32, the type of the parameter".into())
        );
        (all[2].dtype, all[2].data) = (BITSTEP_F32, null_mut());
        assert!(step(&all).1.starts_with("tensors[2].data: NULL"), "{:?}", step(&all));
        (all[2].dtype, all[0].grad_dtype) = (BITSTEP_F32, 9);
        assert!(step(&all).1.starts_with("tensors[0].grad_dtype: dtype: 9"), "{:?}", step(&all));
    });
}

#[test]
fn step_of_a_parameter_in_evaluation_or_without_end_is_refused() {
    let mut run = Run::new("schedule_free_sgd", "lr=0.1, momentum=0.9").expect("an optimizer");
    run.step(0);
    let before = run.bits();
    run.with(1, |o, all| {
        let (mut mode, list, n) = (7, all.as_ptr(), all.len());
        // SAFETY: a live handle and tensors.
        unsafe {
            well(|e| bitstep_optimizer_mode(o, &mut mode, e));
            assert_eq!(mode, BITSTEP_TRAIN);
            well(|e| bitstep_optimizer_eval(o, list, n, e));
            well(|e| bitstep_optimizer_mode(o, &mut mode, e));
            assert_eq!(mode, BITSTEP_EVAL);
            refused(BITSTEP_ARGUMENT, "mode", |e| {
                bitstep_optimizer_step_param(o, 0, list, 0, null(), 0, e)
            });
            refused(BITSTEP_ARGUMENT, "mode", |e| {
                bitstep_optimizer_begin(o, list, n, null(), 0, e)
            });
            refused(BITSTEP_ARGUMENT, "mode", |e| {
                bitstep_optimizer_step_threads(o, list, n, null(), 0, 1, e)
            });
            well(|e| bitstep_optimizer_train(o, list, n, e));
            refused(BITSTEP_ARGUMENT, "threads", |e| {
                bitstep_optimizer_step_threads(o, list, n, null(), 0, 1025, e)
            });
            refused(BITSTEP_POINTER, "run", |e| {
                bitstep_optimizer_step_tasks(o, list, n, null(), 0, 1, None, null_mut(), e)
            });
            refused(BITSTEP_ARGUMENT, "param: 3", |e| {
                bitstep_optimizer_step_param(o, 3, list, 0, null(), 0, e)
            });
        }
    });
    // Both conversions round.
    let near = |a: &u32, b: &u32| a.abs_diff(*b) < 16;
    assert!(before.iter().zip(&run.bits()).all(|(a, b)| near(a, b)));
}

#[test]
fn rule_evaluates_as_an_optimizer_does() {
    for rule in ["schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd", "adamw_torch"] {
        let (mut run, of) = (Run::new(rule, "").expect("an optimizer"), text(rule));
        let (mut made, mut size, shape) = (null_mut(), 0, SHAPES[1]);
        let mut x = run.values[1].clone();
        // SAFETY: live handles and outputs, memory of the stated lengths.
        unsafe {
            well(|e| bitstep_rule_new(of.as_ptr(), null(), &mut made, e));
            well(|e| bitstep_rule_state_size(made, shape.as_ptr(), 1, BITSTEP_F32, &mut size, e));
            let mut memory = vec![0u64; size / 8];
            let place = memory.as_mut_ptr().cast::<c_void>();
            let mut lr = 0.0;
            well(|e| bitstep_optimizer_lr(run.optimizer, 0, &mut lr, e));
            for t in [0, 1, 3, 4] {
                let grads = run.grads(t);
                run.step(t);
                let tensor = tensor(&mut x, &grads[1]);
                well(|e| {
                    bitstep_rule_step(
                        made,
                        lr,
                        &tensor,
                        shape.as_ptr(),
                        1,
                        place,
                        size,
                        null(),
                        0,
                        e,
                    )
                });
            }
            let alone = tensor(&mut x, &[]);
            let dims = shape.as_ptr();
            for _ in 0..2 {
                well(|e| bitstep_rule_eval(made, &alone, dims, 1, place, size, e));
            }
            run.with(0, |o, all| well(|e| bitstep_optimizer_eval(o, all.as_ptr(), all.len(), e)));
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&x), bits(&run.values[1]), "{rule}");
            let grads = run.grads(0);
            let with = tensor(&mut x, &grads[1]);
            refused(BITSTEP_ARGUMENT, "mode", |e| {
                bitstep_rule_step(made, lr, &with, dims, 1, place, size, null(), 0, e)
            });
            well(|e| bitstep_rule_train(made, &with, dims, 1, place, size, e));
            run.with(0, |o, all| well(|e| bitstep_optimizer_train(o, all.as_ptr(), all.len(), e)));
            assert_eq!(bits(&x), bits(&run.values[1]), "{rule}");
            let with = tensor(&mut x, &grads[1]);
            well(|e| bitstep_rule_step(made, lr, &with, dims, 1, place, size, null(), 0, e));
            refused(BITSTEP_LENGTH, "memory", |e| {
                bitstep_rule_eval(made, &with, dims, 1, place, size - 8, e)
            });
            bitstep_rule_free(made);
        }
    }
}

#[test]
fn gradients_are_treated_as_by_the_core() {
    use bitstep::gradient::{
        ClipGradNorm, GradientAccumulator, LossScale, Neftune, clip_grad_value,
    };
    let start: Vec<f32> = (0..50).map(|i| (i as f32 - 20.0) / 8.0).collect();
    let (mut a, mut b) = (start.clone(), start.clone());
    let alone = |x: &mut Vec<f32>| tensor(x, &[]);
    let (mut norm, mut finite) = (0.0, 7);
    // SAFETY: live tensors and outputs.
    unsafe {
        let t = alone(&mut a);
        well(|e| bitstep_total_norm(&t, 1, 3.0, &mut norm, e));
        assert_eq!(norm, bitstep::gradient::total_norm(&[(&start).into()], 3.0).0);
        well(|e| bitstep_clip_grad_norm(&t, 1, 1.5, 2.0, 1, &mut norm, e));
        let clip = ClipGradNorm { max_norm: 1.5, ..ClipGradNorm::default() };
        assert_eq!((clip.clip(&mut [(&mut b).into()]), &a), (Ok(norm), &b));
        well(|e| bitstep_clip_grad_value(&t, 1, 0.125, e));
        clip_grad_value(&mut [(&mut b).into()], 0.125).expect("clipped");
        assert_eq!(a, b);
        well(|e| bitstep_clip_by_global_norm(&t, 1, 0.25, &mut norm, e));
        let tf = bitstep::gradient::ClipByGlobalNorm { clip_norm: 0.25 };
        assert_eq!((tf.clip(&mut [(&mut b).into()]), &a), (Ok(norm), &b));

        // Not finite: refused, and seen.
        a[3] = f32::NAN;
        let t = alone(&mut a);
        refused(BITSTEP_ARGUMENT, "total_norm", |e| {
            bitstep_clip_grad_norm(&t, 1, 1.0, 2.0, 1, &mut norm, e)
        });
        well(|e| bitstep_is_finite(&t, 1, &mut finite, e));
        assert_eq!((finite, a[4]), (0, b[4]));
        a[3] = 0.0;

        let mut scale = std::mem::zeroed::<LossScaleState>();
        well(|e| bitstep_loss_scale_default(&mut scale, e));
        let mut core = LossScale { growth_interval: 2, ..LossScale::default() };
        scale.growth_interval = 2;
        for inf in [false, true, false, false, false] {
            a = start.clone();
            a[7] = if inf { f32::INFINITY } else { 1.0 };
            b.clone_from(&a);
            let t = alone(&mut a);
            well(|e| bitstep_unscale(&scale, &t, 1, &mut finite, e));
            let good = core.unscale(&mut [(&mut b).into()]).expect("a valid scale");
            assert_eq!((finite == 1, &a), (good, &b));
            well(|e| bitstep_loss_scale_update(&mut scale, finite, e));
            core.update(good);
            assert_eq!((scale.scale, scale.good_steps), (core.scale, core.good_steps));
        }
        scale.growth_factor = 0.5;
        refused(BITSTEP_ARGUMENT, "growth_factor", |e| bitstep_loss_scale_update(&mut scale, 1, e));
        refused(BITSTEP_ARGUMENT, "growth_factor", |e| {
            let t = alone(&mut b);
            bitstep_unscale(&scale, &t, 1, &mut finite, e)
        });

        let mut made = null_mut();
        refused(BITSTEP_ARGUMENT, "gradient_accumulation_steps", |e| {
            bitstep_accumulator_new(0, 1, &mut made, e)
        });
        for mean in [0, 1] {
            well(|e| bitstep_accumulator_new(3, mean, &mut made, e));
            let make = if mean == 1 { GradientAccumulator::mean } else { GradientAccumulator::sum };
            let mut core = make(3).expect("a window");
            for k in 0..7 {
                if k == 3 {
                    well(|e| bitstep_accumulator_window(made, 2, e));
                    core.window(2).expect("a window");
                }
                let grad: Vec<f32> = start.iter().map(|x| x * (k as f32 + 0.3)).collect();
                let t = tensor(&mut a, &grad);
                if k == 4 {
                    well(|e| bitstep_accumulator_add_weighted(made, &t, 1, 0.7, &mut finite, e));
                    core.add_weighted((&mut b).into(), (&grad).into(), 0.7).expect("added");
                } else {
                    well(|e| bitstep_accumulator_add(made, &t, 1, &mut finite, e));
                    core.add((&mut b).into(), (&grad).into()).expect("added");
                }
                core.advance();
                assert_eq!((finite == 1, &a), (core.is_complete(), &b), "{mean} {k}");
            }
            refused(BITSTEP_ARGUMENT, "window", |e| bitstep_accumulator_window(made, 2, e));
            well(|e| bitstep_accumulator_restart(made, e));
            well(|e| bitstep_accumulator_window(made, 2, e));
            let without = Tensor { grad: null(), ..tensor(&mut a, &start) };
            refused(BITSTEP_POINTER, "totals[0]", |e| {
                bitstep_accumulator_add(made, &without, 1, &mut finite, e)
            });
            bitstep_accumulator_free(made);
        }

        let noise = Neftune { alpha: 5.0 };
        let t = alone(&mut a);
        well(|e| bitstep_neftune(&t, 5.0, 5, 10, 42, 3, e));
        noise.add((&mut b).into(), 5, 10, 42, 3).expect("noise");
        assert_eq!(a, b);
        let unit = vec![0.75f32; 50];
        let t = tensor(&mut a, &unit);
        well(|e| bitstep_neftune(&t, 5.0, 5, 10, 0, 0, e));
        noise.add_from_uniform((&mut b).into(), (&unit).into(), 5, 10).expect("noise");
        assert_eq!(a, b);
        refused(BITSTEP_ARGUMENT, "neftune", |e| bitstep_neftune(&t, -1.0, 5, 10, 0, 0, e));
    }
}

#[test]
fn rate_asked_for_is_the_one_that_is_stepped_to() {
    for (of, arguments) in [
        (c"cosine", c"{\"lr\": 0.5, \"num_warmup_steps\": 3, \"num_training_steps\": 20, \"groups\": [{}, {\"lr\": 2}]}"),
        (c"torch_exponential", c"lr=0.5, gamma=0.9"),
        (c"torch_cyclic", c"lr=0.5, base_lr=0.25, max_lr=1.0, step_size_up=3"),
        (c"torch_one_cycle", c"max_lr=0.1, total_steps=15"),
        (c"warm_up", c"{\"initial_learning_rate\": 0.5, \"warmup_steps\": 4, \"decay_schedule_fn\": [\"CosineDecay\", {\"initial_learning_rate\": 0.5, \"decay_steps\": 9}]}"),
    ] {
        let (mut s, mut copy, mut rate, mut asked) = (null_mut(), null_mut(), 0.0, 1.0);
        let (mut groups, mut steps) = (0, 0);
        // SAFETY: live handles, strings and outputs.
        unsafe {
            well(|e| bitstep_schedule_new(of.as_ptr(), arguments.as_ptr(), &mut s, e));
            well(|e| bitstep_schedule_clone(s, &mut copy, e));
            for t in 0..15 {
                well(|e| bitstep_schedule_sizes(s, &mut groups, &mut steps, e));
                assert_eq!(steps, t);
                for g in 0..groups {
                    well(|e| bitstep_schedule_lr(s, g, &mut rate, e));
                    well(|e| bitstep_schedule_lr_at(copy, g, t, &mut asked, e));
                    assert_eq!(rate.to_bits(), asked.to_bits(), "{of:?} {g} {t}");
                }
                well(|e| bitstep_schedule_step(s, null(), 0, e));
            }
            refused(BITSTEP_ARGUMENT, "group", |e| bitstep_schedule_lr_at(s, groups, 0, &mut rate, e));
            if of == c"torch_one_cycle" {
                refused(BITSTEP_ARGUMENT, "step", |e| bitstep_schedule_lr_at(s, 0, 16, &mut rate, e));
            } else {
                refused(BITSTEP_ARGUMENT, "2^20", |e| bitstep_schedule_lr_at(s, 0, 1 << 40, &mut rate, e));
            }
            bitstep_schedule_free(s);
            bitstep_schedule_free(copy);
        }
    }
    let mut s = null_mut();
    // SAFETY: live strings and outputs.
    unsafe {
        well(|e| bitstep_schedule_new(c"reduce_lr_on_plateau".as_ptr(), null(), &mut s, e));
        refused(BITSTEP_ARGUMENT, "schedule", |e| bitstep_schedule_lr_at(s, 0, 1, &mut 0.0, e));
        bitstep_schedule_free(s);
    }
}

/// A training from Trainer's arguments steps as one that is put together from the setup by hand.
#[test]
#[cfg(feature = "trainer")]
fn training_is_what_trainer_makes_of_its_arguments() {
    let json = "{\"optim\": \"adamw_8bit\", \"learning_rate\": 0.01, \"weight_decay\": 0.1, \"max_steps\": 9, \"warmup_steps\": 2,
        \"max_grad_norm\": 0.5, \"gradient_accumulation_steps\": 4, \"fp16\": true, \"neftune_noise_alpha\": 5.0}";
    let names = [text("embed.weight"), text("up.weight"), text("up.bias")];
    let shapes: [&[usize]; 3] = [&[64, 80], &[80, 60], &[60]];
    let parameter = |(name, shape): (&CString, &&[usize])| NamedParameter {
        name: name.as_ptr(),
        shape: shape.as_ptr(),
        dimensions: shape.len(),
        dtype: BITSTEP_F32,
        layer: BITSTEP_LAYER_GUESSED,
    };
    let parameters: Vec<_> = names.iter().zip(&shapes).map(parameter).collect();
    let json = text(json);
    let (mut o, mut s) = (null_mut(), null_mut());
    // SAFETY: live strings, lists and outputs.
    unsafe {
        let mut setup = std::mem::zeroed::<TrainingSetup>();
        let mut make = |json: *const c_char, list: &[NamedParameter]| {
            call(|e| {
                bitstep_training_new(
                    json,
                    list.as_ptr(),
                    list.len(),
                    0,
                    &mut o,
                    &mut s,
                    &mut setup,
                    e,
                )
            })
        };
        let mut bad = parameters.clone();
        bad[1].layer = 77;
        for (json, list, of) in [
            (c"{\"optim\": \"adamw_troch\"}".as_ptr(), &parameters, "adamw_torch"),
            (c"{\"learning_rat\": 1}".as_ptr(), &parameters, "learning_rate"),
            (c"{}".as_ptr(), &parameters, "max_steps"),
            (json.as_ptr(), &bad, "parameters[1].layer"),
        ] {
            let (status, message) = make(json, list);
            assert!(status == BITSTEP_ARGUMENT && message.contains(of), "{message}");
        }
        assert_eq!(make(json.as_ptr(), &parameters), (BITSTEP_OK, String::new()));
        assert_eq!((setup.max_grad_norm, setup.neftune_noise_alpha), (0.5, 5.0));
        assert_eq!((setup.gradient_accumulation_steps, setup.num_training_steps), (4, 9));
        assert_eq!(
            (setup.scales_loss, setup.loss_scale.scale, setup.follows_metric),
            (1, 65536.0, 0)
        );
        let run = Run { optimizer: o, values: Vec::new() };
        let decay = |group| {
            let text =
                written(|t, n, needed, e| bitstep_optimizer_arguments(o, group, t, n, needed, e));
            text.contains("\"weight_decay\": 0.1")
        };
        assert!(decay(0) && !decay(1));
        let group = |p| run.param(p).group;
        assert_eq!([group(0), group(1), group(2)], [0, 0, 1]);
        // The embedding's state is not quantized, that of the other matrix is.
        let format = |p| {
            let mut info = std::mem::zeroed::<Slot>();
            well(|e| bitstep_optimizer_slot(o, p, 0, &mut info, e));
            name(&info.format)
        };
        assert_eq!([format(0), format(2)], ["f32", "f32"]);
        assert!(format(1).starts_with("dynamic8"), "{}", format(1));
        let mut lr = 1.0;
        well(|e| bitstep_optimizer_lr(o, 0, &mut lr, e));
        assert_eq!(lr, 0.0); // the start of the warm-up
        well(|e| bitstep_schedule_lr_at(s, 1, 2, &mut lr, e));
        assert_eq!(lr, 0.01);
        bitstep_schedule_free(s);
    }
}
