//! Fits a plane to points with any optimizer: `cargo run -p bitstep-ndarray --example fit -- adamw_torch lr=0.1`

use bitstep::optimizer::GroupId;
use bitstep::prelude::*;
use bitstep_ndarray::{ArrayParam, add_param, step};
use ndarray::{Array1, Array2, Axis, array};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_else(|| "adamw_torch".to_owned());
    let args = Args::parse(&words.next().unwrap_or_else(|| "lr=0.1".to_owned()))?;

    // y = 3a − 2b + 1 over a grid.
    let x =
        Array2::from_shape_fn((100, 2), |(i, j)| [(i % 10) as f64, (i / 10) as f64][j] / 5.0 - 0.9);
    let y = x.dot(&array![3.0, -2.0]) + 1.0;

    let (mut weight, mut bias) = (Array1::<f64>::zeros(2), Array1::<f64>::zeros(1));
    let mut optimizer = Optimizer::new(registry::optimizer(&name, &args)?)?;
    add_param(&mut optimizer, GroupId(0), &weight.view())?;
    add_param(&mut optimizer, GroupId(0), &bias.view())?;
    for t in 0..=300 {
        let error = x.dot(&weight) + bias[0] - &y;
        if t % 50 == 0 {
            let loss = error.mapv(|e| e * e).mean().unwrap_or(0.0);
            println!("{t:4}  loss {loss:10.6}  weight {weight:.3}  bias {bias:.3}");
        }
        let grad =
            (&x * &error.view().insert_axis(Axis(1))).mean_axis(Axis(0)).ok_or("no points")? * 2.0;
        let grad_bias = array![2.0 * error.mean().ok_or("no points")?];
        let mut items = [
            ArrayParam::new(weight.view_mut(), Some(grad.view())),
            ArrayParam::new(bias.view_mut(), Some(grad_bias.view())),
        ];
        step(&mut optimizer, &mut items, &[])?;
    }
    Ok(())
}
