//! Every optimizer of the list gives the bits of the core on candle's variables.

use std::sync::atomic::{AtomicUsize, Ordering};

use bitstep::gradient::ClipGradNorm;
use bitstep::hyper::Args;
use bitstep::optimizer::{Optimizer as Core, Param};
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use bitstep::storage::Plain;
use bitstep_candle::{Optimizer, named_vars};
use candle_core::{DType, Device, Tensor, Var, WithDType};
use candle_nn::{Optimizer as _, VarMap};

const SHAPES: &[&[usize]] = &[&[], &[5], &[3, 4], &[2, 3, 5], &[70, 1000]];
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
fn numbers<T: Plain>(shape: &[usize], salt: u32) -> Vec<T> {
    (0..shape.iter().product::<usize>() as u32)
        .map(|i| (i ^ salt).wrapping_mul(2_654_435_761).wrapping_add(salt) >> 8)
        .map(|x| T::from_f64(f64::from(x) / f64::from(1 << 23) - 1.0))
        .collect()
}

fn bits<T: Plain>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| x.to_f64()).map(|x| if x.is_nan() { 1 } else { x.to_bits() }).collect()
}

fn core<T: Plain>(name: &str) -> Vec<Vec<u64>> {
    let mut optimizer = Core::empty();
    let group = optimizer.add_group(registry::optimizer(name, &Args::new()).unwrap()).unwrap();
    let mut values: Vec<Vec<T>> = shapes(name).iter().map(|s| numbers(s, 7)).collect();
    for shape in shapes(name) {
        optimizer.add_param_to(group, shape, T::DTYPE).unwrap();
    }
    for t in 0..STEPS {
        let grads: Vec<Vec<T>> = shapes(name).iter().map(|s| numbers(s, 100 + t)).collect();
        let mut params: Vec<Param<'_>> = values
            .iter_mut()
            .zip(&grads)
            .map(|(v, g)| Param { value: T::data_mut(v), grad: Some(T::data(g)) })
            .collect();
        optimizer.step_all(&mut params, &[]).unwrap();
    }
    values.iter().map(|v| bits(v)).collect()
}

fn tensor<T: Plain + WithDType>(shape: &[usize], salt: u32) -> Tensor {
    Tensor::from_vec(numbers::<T>(shape, salt), shape, &Device::Cpu).unwrap()
}

fn candle<T: Plain + WithDType>(name: &str) -> Vec<Vec<u64>> {
    let vars: Vec<Var> =
        shapes(name).iter().map(|s| Var::from_tensor(&tensor::<T>(s, 7)).unwrap()).collect();
    let recipe = registry::optimizer(name, &Args::new()).unwrap();
    let mut optimizer = Optimizer::new(vars.clone(), recipe).unwrap();
    for t in 0..STEPS {
        let grads: Vec<Tensor> = shapes(name).iter().map(|s| tensor::<T>(s, 100 + t)).collect();
        // A store can only be had from a backward pass: of zero, then filled.
        let zero = vars[0].sum_all().unwrap();
        let mut store = zero.backward().unwrap();
        for (var, grad) in vars.iter().zip(grads) {
            store.insert(var, grad);
        }
        optimizer.step(&store).unwrap();
    }
    vars.iter().map(|v| bits(&v.flatten_all().unwrap().to_vec1::<T>().unwrap())).collect()
}

#[test]
fn every_optimizer_has_the_bits_of_core_on_one_two_and_three_threads() {
    let pools = [1, 2, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    let of_name = |name| {
        let want = core::<f32>(name);
        for pool in &pools {
            let got = pool.install(|| candle::<f32>(name));
            assert!(got == want, "{name} on {} threads", pool.current_num_threads());
        }
        assert!(candle::<f64>(name) == core::<f64>(name), "{name} f64");
        assert!(candle::<half::bf16>(name) == core::<half::bf16>(name), "{name} bf16");
        assert!(candle::<half::f16>(name) == core::<half::f16>(name), "{name} f16");
    };
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(entry) = OPTIMIZERS.get(next.fetch_add(1, Ordering::Relaxed)) {
            of_name(entry.name);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

#[test]
fn a_map_gives_its_variables_in_the_order_of_their_names_and_steps_free_gradients() {
    let map = VarMap::new();
    let vb = candle_nn::VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    let linear = candle_nn::linear(3, 2, vb.pp("b")).unwrap();
    candle_nn::layer_norm(3, 1e-5, vb.pp("a")).unwrap();
    let named = named_vars(&map);
    let names: Vec<_> = named.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a.bias", "a.weight", "b.bias", "b.weight"]);

    let recipe = registry::optimizer("adamw_torch", &Args::new().with("lr", 0.1)).unwrap();
    let mut optimizer = Optimizer::empty();
    optimizer.add_group(recipe, named).unwrap();
    let before = linear.weight().to_vec2::<f32>().unwrap();
    let x = Tensor::ones((1, 3), DType::F32, &Device::Cpu).unwrap();
    let loss = candle_nn::Module::forward(&linear, &x).unwrap().sqr().unwrap().sum_all().unwrap();
    let mut grads = loss.backward().unwrap();
    optimizer.step_and_free(&mut grads, &[]).unwrap();
    assert_ne!(linear.weight().to_vec2::<f32>().unwrap(), before);
    // Variables without a gradient have not moved, nor their counters.
    assert_eq!(optimizer.state("a.weight").unwrap().steps, 0);
    assert_eq!(optimizer.state("b.weight").unwrap().steps, 1);
    assert!(grads.get(linear.weight()).is_none(), "freed");
}

#[test]
fn clipping_scales_all_gradients_in_place() {
    let var = Var::ones(4, DType::F32, &Device::Cpu).unwrap();
    let grads = (var.as_tensor() * 3.0).unwrap().sum_all().unwrap().backward().unwrap();
    let recipe = registry::optimizer("adamw_torch", &Args::new()).unwrap();
    let optimizer = Optimizer::new(vec![var.clone()], recipe).unwrap();
    assert_eq!(optimizer.clip_grad_norm(&grads, &ClipGradNorm::default()).unwrap(), 6.0);
    let clipped = grads.get(&var).unwrap().to_vec1::<f32>().unwrap();
    assert!(clipped.iter().all(|g| (g - 0.5).abs() < 1e-6));
}

#[test]
fn a_gradient_of_another_shape_is_refused_and_nothing_is_written() {
    let vars = [4, 5].map(|n| Var::ones(n, DType::F32, &Device::Cpu).unwrap());
    let mut store = vars[0].sum_all().unwrap().backward().unwrap();
    store.insert(&vars[1], Tensor::ones(3, DType::F32, &Device::Cpu).unwrap());
    let recipe = registry::optimizer("adamw_torch", &Args::new()).unwrap();
    let mut optimizer = Optimizer::new(vars.to_vec(), recipe).unwrap();
    assert!(optimizer.step(&store).is_err());
    assert_eq!(vars[0].to_vec1::<f32>().unwrap(), [1.0; 4]);
}
