//! Floats of a byte: a sign, an exponent, a mantissa.

/// Which bits are what, and what the largest exponent is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MiniFloat {
    mantissa: u32,
    bias: i32,
    /// The code of the largest finite number.
    code_max: u8,
}

impl MiniFloat {
    /// 4 bits of exponent and 3 of mantissa, without infinities: 448 is the largest.
    pub(crate) const E4M3: Self = Self { mantissa: 3, bias: 7, code_max: 0x7E };
    /// 5 bits of exponent and 2 of mantissa: 57344 is the largest finite one.
    pub(crate) const E5M2: Self = Self { mantissa: 2, bias: 15, code_max: 0x7B };

    /// The largest finite number.
    pub(crate) fn max(self) -> f32 {
        self.decode(self.code_max)
    }

    /// The number of a code.
    pub(crate) fn decode(self, code: u8) -> f32 {
        let (sign, magnitude) = (if code & 0x80 == 0 { 1.0 } else { -1.0 }, code & 0x7F);
        if magnitude > self.code_max {
            // Of the larger exponent only E5M2 has an infinity.
            let is_infinite = self == Self::E5M2 && magnitude == self.code_max + 1;
            return if is_infinite { sign * f32::INFINITY } else { f32::NAN };
        }
        let exponent = i32::from(magnitude >> self.mantissa);
        let fraction = f32::from(magnitude & ((1 << self.mantissa) - 1));
        let one = (1 << self.mantissa) as f32;
        let (significand, power) = match exponent {
            0 => (fraction / one, 1 - self.bias),
            _ => (1.0 + fraction / one, exponent - self.bias),
        };
        sign * significand * (power as f32).exp2()
    }

    /// The code of the nearest number, ties to even; what is larger than all becomes the largest, and what is no number
    /// stays none.
    pub(crate) fn encode(self, x: f32) -> u8 {
        let sign = if x.is_sign_negative() { 0x80 } else { 0 };
        if x.is_nan() {
            return sign | 0x7F;
        }
        let x = x.abs();
        if x >= self.max() {
            return sign | self.code_max;
        }
        // In steps of the exponent that it has, or of the least normal one.
        let exponent = ((x.to_bits() >> 23) as i32 - 127).max(1 - self.bias);
        let step = ((exponent - self.mantissa as i32) as f32).exp2();
        let steps = (x / step).round_ties_even() as i32;
        // Subnormal numbers count from 0, others from the first of their exponent; one that is rounded up to the
        // next exponent has the next code.
        let code = steps + ((exponent + self.bias - 1) << self.mantissa);
        sign | (code as u8).min(self.code_max)
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::golden::numbers;

    use super::MiniFloat;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/quantizers.json"));

    #[test]
    fn every_code_is_the_number_of_ml_dtypes_and_comes_back() {
        for (float, entry) in [(MiniFloat::E4M3, "decode_e4m3fn"), (MiniFloat::E5M2, "decode_e5m2")]
        {
            // Codes of finite numbers; the others are below.
            let codes = numbers(GOLDEN, entry, "code");
            let expected = numbers(GOLDEN, entry, "value");
            assert!(codes.len() > 240);
            for (code, expected) in codes.into_iter().zip(expected) {
                let found = float.decode(code as u8);
                assert_eq!(f64::from(found), expected, "{entry} {code}");
                assert_eq!(float.encode(found), code as u8, "{entry} {code}");
            }
        }
        assert!(MiniFloat::E4M3.decode(0x7F).is_nan() && MiniFloat::E4M3.decode(0xFF).is_nan());
        assert_eq!(MiniFloat::E5M2.decode(0x7C), f32::INFINITY);
        assert_eq!(MiniFloat::E5M2.decode(0xFC), f32::NEG_INFINITY);
        assert!((0x7D..=0x7F).all(|code| MiniFloat::E5M2.decode(code).is_nan()));
    }

    #[test]
    fn numbers_between_codes_go_where_those_of_ml_dtypes_go() {
        for (float, entry) in [(MiniFloat::E4M3, "encode_e4m3fn"), (MiniFloat::E5M2, "encode_e5m2")]
        {
            let x = numbers(GOLDEN, entry, "x");
            let codes = numbers(GOLDEN, entry, "code");
            assert!(x.len() > 500);
            for (x, code) in x.into_iter().zip(codes) {
                assert_eq!(float.encode(x as f32), code as u8, "{entry}: {x}");
            }
        }
    }

    #[test]
    fn what_is_too_large_saturates() {
        for float in [MiniFloat::E4M3, MiniFloat::E5M2] {
            for x in [f32::INFINITY, f32::MAX, 1e6] {
                assert_eq!(float.decode(float.encode(x)), float.max());
                assert_eq!(float.decode(float.encode(-x)), -float.max());
            }
            assert!(float.decode(float.encode(f32::NAN)).is_nan());
        }
    }
}
