//! A schedule that was saved and loaded continues as the original does.

use std::ffi::CString;
use std::ptr::{null, null_mut};

use bitstep_capi::*;

const LISTENS: &[&str] = &["reduce_lr_on_plateau", "greedy", "adafactor_schedule"];

fn made(name: &str, arguments: &str) -> *mut Schedule {
    let (name, arguments) = (CString::new(name).unwrap(), CString::new(arguments).unwrap());
    let mut schedule = null_mut();
    // SAFETY: live strings and outputs.
    let status = unsafe {
        bitstep_schedule_new(name.as_ptr(), arguments.as_ptr(), &mut schedule, null_mut())
    };
    assert_eq!(status, BITSTEP_OK);
    schedule
}

/// A step, with the metric for schedules that take one, and the rate after it.
fn step(schedule: *mut Schedule, name: &str, t: u32) -> u64 {
    let metric = [f64::from((t * 7) % 5)];
    let given = if LISTENS.contains(&name) { &metric[..] } else { &[] };
    let (pointer, mut lr) = (if given.is_empty() { null() } else { given.as_ptr() }, 0.0);
    // SAFETY: a live schedule, and live outputs.
    unsafe {
        assert_eq!(bitstep_schedule_step(schedule, pointer, given.len(), null_mut()), BITSTEP_OK);
        assert_eq!(bitstep_schedule_lr(schedule, 0, &mut lr, null_mut()), BITSTEP_OK);
    }
    lr.to_bits()
}

#[test]
fn schedule_saved_and_loaded_goes_on() {
    for (name, arguments) in [
        ("cosine", "lr=0.5, num_warmup_steps=2, num_training_steps=20"),
        ("torch_exponential", "lr=0.5, gamma=0.9"),
        ("reduce_lr_on_plateau", "lr=0.5, patience=1, factor=0.5"),
        ("greedy", "lr=0.5, patience=1, smooth=True, window_size=3, min_lr=0.001"),
        ("adafactor_schedule", "initial_lr=0.5"),
    ] {
        let (schedule, copy) = (made(name, arguments), made(name, arguments));
        (0..7).for_each(|t| _ = step(schedule, name, t));
        let mut size = 0;
        // SAFETY: live schedules, and memory of the stated length.
        unsafe {
            assert_eq!(bitstep_schedule_save_size(schedule, &mut size, null_mut()), BITSTEP_OK);
            let mut memory = vec![0u8; size];
            let saved = bitstep_schedule_save(schedule, memory.as_mut_ptr(), size, null_mut());
            assert_eq!(saved, BITSTEP_OK);
            let short = bitstep_schedule_load(copy, memory.as_ptr(), size - 1, null_mut());
            assert_eq!(short, BITSTEP_STATE, "{name}");
            let loaded = bitstep_schedule_load(copy, memory.as_ptr(), size, null_mut());
            assert_eq!(loaded, BITSTEP_OK, "{name}");
        }
        for t in 7..15 {
            assert_eq!(step(schedule, name, t), step(copy, name, t), "{name} at {t}");
        }
        // SAFETY: live schedules, not used afterwards.
        unsafe {
            bitstep_schedule_free(schedule);
            bitstep_schedule_free(copy);
        }
    }
}

/// Nine steps under torch's own OneCycleLR and CyclicLR, whose `cycle_momentum` is true by default.
#[test]
fn momentum_is_cycled_as_by_torch() {
    for (rule, arguments, name, schedule_arguments, want) in [
        ("sgd", "lr=0.1, momentum=0.9", "torch_one_cycle", "max_lr=0.1, total_steps=10", -2.38971),
        ("adamw_torch", "lr=0.1", "torch_one_cycle", "max_lr=0.1, total_steps=10", 0.561731),
        (
            "sgd",
            "lr=0.1, momentum=0.9",
            "torch_cyclic",
            "base_lr=0.01, max_lr=0.1, step_size_up=3",
            -2.94731,
        ),
    ] {
        let schedule = made(name, &format!("lr=0.1, {schedule_arguments}"));
        let (rule, arguments) = (CString::new(rule).unwrap(), CString::new(arguments).unwrap());
        let (mut optimizer, mut group) = (null_mut(), 0);
        let (none, shape) = (null_mut(), [1usize]);
        let mut p = [1.0f64];
        // SAFETY: live handles, strings and places.
        unsafe {
            assert_eq!(bitstep_optimizer_new(&mut optimizer, none), BITSTEP_OK);
            let (rule, arguments) = (rule.as_ptr(), arguments.as_ptr());
            let added = bitstep_optimizer_add_group(optimizer, rule, arguments, &mut group, none);
            assert_eq!(added, BITSTEP_OK);
            let added =
                bitstep_optimizer_add_param(optimizer, 0, shape.as_ptr(), 1, BITSTEP_F64, none);
            assert_eq!(added, BITSTEP_OK);
            assert_eq!(bitstep_schedule_apply(schedule, optimizer, none), BITSTEP_OK);
            for t in 0..9 {
                let grad = [1.0 + 0.5 * f64::from(t)];
                let tensor = Tensor {
                    data: p.as_mut_ptr().cast(),
                    len: 1,
                    dtype: BITSTEP_F64,
                    grad_dtype: BITSTEP_F64,
                    grad: grad.as_ptr().cast(),
                };
                let stepped = bitstep_optimizer_step(optimizer, &tensor, 1, null(), 0, none);
                assert_eq!(stepped, BITSTEP_OK);
                assert_eq!(bitstep_schedule_step(schedule, null(), 0, none), BITSTEP_OK);
                assert_eq!(bitstep_schedule_apply(schedule, optimizer, none), BITSTEP_OK);
            }
            bitstep_schedule_free(schedule);
            bitstep_optimizer_free(optimizer);
        }
        assert!((p[0] - want).abs() < 5e-6, "{name}: {p:?}, wanted {want}");
    }
}
