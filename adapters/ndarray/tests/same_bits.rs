//! Every optimizer of the list gives the bits of the core, in any memory order and on any number of threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use bitstep::hyper::Args;
use bitstep::optimizer::{GroupId, Optimizer, Param};
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use bitstep::storage::Plain;
use bitstep_ndarray::{ArrayParam, add_param};
use half::{bf16, f16};
use ndarray::{Array, ArrayD, IxDyn, ShapeBuilder};

const SHAPES: &[&[usize]] = &[&[], &[5], &[3, 4], &[0, 2], &[2, 3, 5], &[70, 1000]];
const STEPS: u32 = 3;

/// The shapes that a rule has an update for: some move matrices only.
fn shapes(name: &str) -> Vec<&'static [usize]> {
    let rule = registry::optimizer(name, &Args::new()).unwrap().rule;
    let shapes: Vec<_> =
        SHAPES.iter().copied().filter(|shape| rule.check_shape(shape).is_ok()).collect();
    assert!(shapes.len() > 1, "{name}");
    shapes
}

/// Numbers that look random, from their position.
fn numbers<T: Plain>(shape: &[usize], salt: u32, fortran: bool) -> ArrayD<T> {
    let rows: Vec<T> = (0..shape.iter().product::<usize>() as u32)
        .map(|i| (i ^ salt).wrapping_mul(2_654_435_761).wrapping_add(salt) >> 8)
        .map(|x| T::from_f64(f64::from(x) / f64::from(1 << 23) - 1.0))
        .collect();
    let standard = Array::from_shape_vec(IxDyn(shape), rows).unwrap();
    if !fortran {
        return standard;
    }
    let mut other = Array::from_elem(IxDyn(shape).f(), T::default());
    other.assign(&standard);
    other
}

fn optimizer(name: &str) -> (Optimizer, usize) {
    let mut optimizer = Optimizer::empty();
    let group = optimizer.add_group(registry::optimizer(name, &Args::new()).unwrap()).unwrap();
    (optimizer, group.0)
}

fn bytes<T: Plain>(array: &ArrayD<T>) -> Vec<u64> {
    array.iter().map(|x| x.to_f64()).map(|x| if x.is_nan() { 1 } else { x.to_bits() }).collect()
}

fn core<T: Plain>(name: &str) -> Vec<Vec<u64>> {
    let (mut optimizer, group) = optimizer(name);
    let mut values: Vec<ArrayD<T>> = shapes(name).iter().map(|s| numbers(s, 7, false)).collect();
    for shape in shapes(name) {
        optimizer.add_param_to(GroupId(group), shape, T::DTYPE).unwrap();
    }
    for t in 0..STEPS {
        let grads: Vec<ArrayD<T>> =
            shapes(name).iter().map(|s| numbers(s, 100 + t, false)).collect();
        let mut params: Vec<Param<'_>> = values
            .iter_mut()
            .zip(&grads)
            .map(|(v, g)| Param {
                value: T::data_mut(v.as_slice_mut().unwrap()),
                grad: Some(T::data(g.as_slice().unwrap())),
            })
            .collect();
        optimizer.step_all(&mut params, &[]).unwrap();
    }
    values.iter().map(bytes).collect()
}

type Step = fn(&mut Optimizer, &mut [ArrayParam<'_>], &[(&str, f64)]) -> Result<(), bitstep::Error>;

fn adapter<T: Plain>(name: &str, fortran: bool, step: Step) -> Vec<Vec<u64>> {
    let (mut optimizer, group) = optimizer(name);
    let mut values: Vec<ArrayD<T>> = shapes(name).iter().map(|s| numbers(s, 7, fortran)).collect();
    for value in &values {
        add_param(&mut optimizer, GroupId(group), &value.view()).unwrap();
    }
    for t in 0..STEPS {
        // Gradients in the other order than the parameters.
        let grads: Vec<ArrayD<T>> =
            shapes(name).iter().map(|s| numbers(s, 100 + t, fortran && t % 2 == 0)).collect();
        let mut items: Vec<ArrayParam<'_>> = values
            .iter_mut()
            .zip(&grads)
            .map(|(v, g)| ArrayParam::new(v.view_mut(), Some(g.view())))
            .collect();
        step(&mut optimizer, &mut items, &[]).unwrap();
    }
    values.iter().map(bytes).collect()
}

/// An optimizer after the other on every processor.
fn over_all(test: impl Fn(&str) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(entry) = OPTIMIZERS.get(next.fetch_add(1, Ordering::Relaxed)) {
            test(entry.name);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

fn in_both_orders<T: Plain>(name: &str) {
    let want = core::<T>(name);
    for fortran in [false, true] {
        assert_eq!(adapter::<T>(name, fortran, bitstep_ndarray::step), want, "{name}");
    }
}

#[test]
fn every_optimizer_in_c_and_fortran_order_has_the_bits_of_core() {
    over_all(|name| {
        in_both_orders::<f32>(name);
        in_both_orders::<f64>(name);
        in_both_orders::<bf16>(name);
        in_both_orders::<f16>(name);
    });
}

#[cfg(feature = "rayon")]
#[test]
fn every_optimizer_on_one_two_and_three_threads_has_the_bits_of_core() {
    let pools = [1, 2, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    over_all(|name| {
        let want = core::<f32>(name);
        for pool in &pools {
            let got = pool.install(|| adapter::<f32>(name, false, bitstep_ndarray::par_step));
            assert_eq!(got, want, "{name} on {} threads", pool.current_num_threads());
        }
    });
}

#[test]
fn strided_and_reversed_views_are_stepped_in_logical_order() {
    let (mut a, group) = optimizer("adamw_torch");
    let (mut b, _) = optimizer("adamw_torch");
    let mut wide = numbers::<f32>(&[8, 6], 3, false);
    let grad = numbers::<f32>(&[4, 6], 9, false);
    let view = |x: &mut ArrayD<f32>| -> ArrayD<f32> {
        x.slice(ndarray::s![..;-2, ..]).to_owned().into_dyn()
    };
    let mut plain = view(&mut wide);
    a.add_param_to(GroupId(group), &[4, 6], bitstep::float::Dtype::F32).unwrap();
    b.add_param_to(GroupId(group), &[4, 6], bitstep::float::Dtype::F32).unwrap();
    bitstep_ndarray::step(
        &mut a,
        &mut [ArrayParam::new(
            wide.slice_mut(ndarray::s![..;-2, ..]),
            Some(grad.view().into_dimensionality().unwrap()),
        )],
        &[],
    )
    .unwrap();
    bitstep_ndarray::step(&mut b, &mut [ArrayParam::new(plain.view_mut(), Some(grad.view()))], &[])
        .unwrap();
    assert_eq!(bytes(&view(&mut wide)), bytes(&plain));
}

#[test]
fn a_gradient_of_another_shape_is_refused_and_nothing_is_written() {
    let (mut optimizer, group) = optimizer("adamw_torch");
    let mut value = numbers::<f32>(&[2, 3], 3, false);
    let before = value.clone();
    let grad = numbers::<f32>(&[3, 2], 3, false);
    add_param(&mut optimizer, GroupId(group), &value.view()).unwrap();
    let mut items = [ArrayParam::new(value.view_mut(), Some(grad.view()))];
    assert!(bitstep_ndarray::step(&mut optimizer, &mut items, &[]).is_err());
    drop(items);
    assert_eq!(value, before);
}
