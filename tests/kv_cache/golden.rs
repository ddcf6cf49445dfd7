//! Codes, scales and patches as numpy makes them.

use jackfield_tests::golden;
use plugin_api::plan::Part;
use plugin_api::prelude::*;
use serde_json::Value as Json;

fn floats(list: &Json) -> Vec<f32> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn bytes(list: &Json) -> Vec<u8> {
    list.as_array().unwrap().iter().map(|x| x.as_i64().unwrap() as u8).collect()
}

fn bits(number: &Json) -> [u8; 2] {
    (number.as_u64().unwrap() as u16).to_ne_bytes()
}

#[test]
fn codes_scales_and_patches_are_those_of_numpy() {
    let text = std::fs::read_to_string(golden("kv_codes.json")).unwrap();
    let json: Json = serde_json::from_str(&text).unwrap();
    let cases = json["cases"].as_array().unwrap();
    let mut patched = 0;
    for case in cases {
        let (x, heads) = (floats(&case["x"]), case["heads"].as_u64().unwrap() as usize);
        let len = x.len() / heads;
        let scales = match &case["channel_scales"] {
            Json::Null => CodeScales::PerVector,
            given => CodeScales::PerChannel(vec![floats(given)]),
        };
        let part = Part { name: "key".to_owned(), dims: vec![heads as u32, len as u32] };
        let vectors = case["vectors"].as_array().unwrap();
        let codes: Vec<u8> = vectors.iter().flat_map(|vector| bytes(&vector["codes"])).collect();
        let mut expected = codes;
        if scales == CodeScales::PerVector {
            expected.extend(vectors.iter().flat_map(|vector| bits(&vector["scale"])));
        }
        let plain = AffineStorage { scales, patches: None };
        let storage = Storage::Affine(plain.clone());
        let mut block = vec![0xAA; storage.block_bytes(&part, 1)];
        storage.write(0, &part, &mut block, 0, &x);
        assert_eq!(block, expected, "{heads} vectors of {len}");

        // A patch for each vector that loses more than the half of what the worst one loses.
        let errors: Vec<f64> = vectors.iter().map(|v| v["error"].as_f64().unwrap()).collect();
        let error_min = errors.iter().fold(0.0, |a: f64, b| a.max(*b)) as f32 / 2.0;
        let patches = Some(Patches { per_block: heads, error_min });
        let storage = Storage::Affine(AffineStorage { patches, ..plain });
        for (index, vector) in vectors.iter().enumerate() {
            if errors[index] > f64::from(error_min) {
                expected.extend((index as u16 + 1).to_ne_bytes());
                expected.extend(bits(&vector["patch_scale"]));
                expected.extend(bytes(&vector["patch"]));
                patched += 1;
            }
        }
        let mut block = vec![0; storage.block_bytes(&part, 1)];
        storage.write(0, &part, &mut block, 0, &x);
        expected.resize(block.len(), 0);
        assert_eq!(block, expected, "{heads} vectors of {len} with patches");
        let mut back = vec![0.0; x.len()];
        storage.read(0, &part, &block, 0, &mut back);
        let most = x.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        assert!(x.iter().zip(&back).all(|(x, y)| (x - y).abs() <= most), "{x:?} {back:?}");
    }
    assert!(cases.len() > 10 && patched > 10, "{} cases, {patched} patches", cases.len());
}
