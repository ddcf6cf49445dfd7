//! Tests.
#[test]
fn passes_the_contract_suite() {
    plugin_api::testing::backend::suite(&super::Candle);
}
#[test]
fn experiment() {
    use candle_core::{Device, Tensor};
    use std::time::Instant;
    for (n, k) in [(1536, 576), (576, 1536), (2048, 2048), (5632, 2048), (33, 65)] {
        let w = Tensor::randn(0f32, 1., (n, k), &Device::Cpu).unwrap();
        let wt = w.t().unwrap();
        let x = Tensor::randn(0f32, 1., (512, k), &Device::Cpu).unwrap();
        let blocked = |x: &Tensor, b: usize| -> Tensor {
            let rows = x.dim(0).unwrap();
            let p = rows.next_multiple_of(b) - rows;
            let x = x.pad_with_zeros(0, 0, p).unwrap();
            let y: Vec<_> = (0..rows).step_by(b).map(|s| x.narrow(0, s, b).unwrap().matmul(&wt).unwrap()).collect();
            Tensor::cat(&y, 0).unwrap().narrow(0, 0, rows).unwrap().contiguous().unwrap()
        };
        let bits = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let best = |f: &dyn Fn() -> Tensor| (0..7).map(|_| { let t = Instant::now(); let _ = f(); t.elapsed().as_secs_f64() * 1e3 }).fold(f64::MAX, f64::min);
        let mut line = String::new();
        for b in [1, 4, 8, 16, 32, 64, 0] {
            let f = |x: &Tensor| if b == 0 { x.matmul(&wt).unwrap() } else { blocked(x, b) };
            let all = bits(&f(&x));
            let mut same = 0; let mut total = 0;
            for r in [0usize, 1, 2, 3, 5, 7, 11, 15, 17, 100, 511] {
                for cnt in [1usize, 2, 3, 5, 9, 17, 40] {
                    if r + cnt > 512 { continue }
                    let part = bits(&f(&x.narrow(0, r, cnt).unwrap().contiguous().unwrap()));
                    total += 1;
                    same += usize::from(part[..] == all[r * n..(r + cnt) * n]);
                }
            }
            let (a, m, z) = (x.narrow(0, 0, 1).unwrap(), x.narrow(0, 0, 16).unwrap(), x.clone());
            line += &format!("\n  block {b:2}: same {same}/{total}  1 row {:.3} ms, 16 rows {:.3}, 512 rows {:.1}", best(&|| f(&a)), best(&|| f(&m)), best(&|| f(&z)));
        }
        println!("{n}x{k}{line}");
    }
}
