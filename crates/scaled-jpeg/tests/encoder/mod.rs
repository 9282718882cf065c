//! A small JPEG encoder for tests: any sampling factors, scans of one or several components, and
//! restart intervals, both sequential and progressive.

use std::f64::consts::PI;
use std::sync::LazyLock;

const SOF0: u8 = 0xc0;
const SOF2: u8 = 0xc2;
const DHT: u8 = 0xc4;
const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DQT: u8 = 0xdb;
const DNL: u8 = 0xdc;
const DRI: u8 = 0xdd;
const APP0: u8 = 0xe0;
const APP14: u8 = 0xee;

/// The value of a component (0 to 255) at a point of the image, given in pixels.
pub type ValueAt = fn(f64, f64) -> f64;

/// A component of a [`TestJpeg`].
#[derive(Clone, Copy)]
pub struct TestComponent {
    pub id: u8,
    /// The horizontal and the vertical sampling factor.
    pub sampling: (usize, usize),
    pub value_at: ValueAt,
}

/// An image to encode.
#[derive(Clone)]
pub struct TestJpeg {
    pub width: usize,
    pub height: usize,
    pub components: Vec<TestComponent>,
    pub progressive: bool,
    /// The components of each scan. In a progressive image only DC coefficients are interleaved.
    pub scans: Vec<Vec<usize>>,
    /// The number of MCUs of a restart interval; 0 for no restarts.
    pub restart: usize,
    /// Whether a progressive image has a scan for each AC coefficient of each component.
    pub one_coefficient_per_scan: bool,
    /// Whether there is a JFIF segment.
    pub jfif: bool,
    /// The color transform of the Adobe segment, if there is one.
    pub adobe: Option<u8>,
    /// Whether the height is stated after the first scan (DNL segment).
    pub height_after_scan: bool,
}

/// The divisor of all coefficients.
const QUANTIZATION: i32 = 2;
/// The zigzag order of the coefficients (ITU-T T.81, figure 5).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// A coefficient band and the bits that a scan of it adds.
#[derive(Clone, Copy)]
struct Band {
    first: usize,
    last: usize,
    high: u8,
    low: u8,
}

/// The quantized coefficients of a component.
struct Plane {
    /// The number of blocks with samples of the image, and of a row of all blocks.
    blocks: (usize, usize),
    stride: usize,
    coefficients: Vec<[i32; 64]>,
}

impl TestJpeg {
    /// An image with one scan of all components.
    pub fn new(width: usize, height: usize, components: Vec<TestComponent>) -> Self {
        Self {
            width,
            height,
            scans: vec![(0..components.len()).collect()],
            components,
            progressive: false,
            restart: 0,
            one_coefficient_per_scan: false,
            jfif: false,
            adobe: None,
            height_after_scan: false,
        }
    }

    /// The number of blocks in an MCU of all components; at most 10 are allowed in one scan.
    pub fn blocks_per_mcu(&self) -> usize {
        let factors = self.components.iter().map(|part| part.sampling);
        factors.map(|(across, down)| across * down).sum()
    }

    /// Encodes the image.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0xff, SOI];
        if self.jfif {
            segment(&mut out, APP0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
        }
        if let Some(transform) = self.adobe {
            segment(
                &mut out,
                APP14,
                &[b"Adobe\0\x64\0\0\0\0", &[transform][..]].concat(),
            );
        }
        segment(
            &mut out,
            DQT,
            &[&[0][..], &[QUANTIZATION as u8; 64]].concat(),
        );
        // All codes of a table have one length, so that a code is the index of its symbol.
        let mut dc = [0; 17];
        dc[4] = 12;
        segment(
            &mut out,
            DHT,
            &[&dc[..], &(0..12).collect::<Vec<u8>>()].concat(),
        );
        let mut ac = [0; 17];
        ac[0] = 0x10;
        ac[8] = ac_symbols().len() as u8;
        segment(&mut out, DHT, &[&ac[..], &ac_symbols()].concat());
        if self.restart > 0 {
            segment(&mut out, DRI, &(self.restart as u16).to_be_bytes());
        }
        let mut frame = vec![8];
        let height = if self.height_after_scan {
            0
        } else {
            self.height
        };
        frame.extend((height as u16).to_be_bytes());
        frame.extend((self.width as u16).to_be_bytes());
        frame.push(self.components.len() as u8);
        for part in &self.components {
            frame.extend([part.id, (part.sampling.0 << 4 | part.sampling.1) as u8, 0]);
        }
        segment(&mut out, if self.progressive { SOF2 } else { SOF0 }, &frame);
        let planes: Vec<Plane> = self
            .components
            .iter()
            .map(|part| self.plane(*part))
            .collect();
        for (number, (members, band)) in self.script().into_iter().enumerate() {
            let mut header = vec![members.len() as u8];
            header.extend(
                members
                    .iter()
                    .flat_map(|&member| [self.components[member].id, 0]),
            );
            header.extend([band.first as u8, band.last as u8, band.high << 4 | band.low]);
            segment(&mut out, SOS, &header);
            self.write_scan(&mut out, &planes, &members, band);
            if self.height_after_scan && number == 0 {
                segment(&mut out, DNL, &(self.height as u16).to_be_bytes());
            }
        }
        out.extend([0xff, EOI]);
        out
    }

    fn max_sampling(&self) -> (usize, usize) {
        let factors = self.components.iter().map(|part| part.sampling);
        factors.fold((1, 1), |most, each| {
            (most.0.max(each.0), most.1.max(each.1))
        })
    }

    /// The scans with their bands.
    fn script(&self) -> Vec<(Vec<usize>, Band)> {
        let band = |first, last, high, low| Band {
            first,
            last,
            high,
            low,
        };
        if !self.progressive {
            let scans = self.scans.iter().cloned();
            return scans.map(|members| (members, band(0, 63, 0, 0))).collect();
        }
        let mut script = Vec::new();
        if self.one_coefficient_per_scan {
            script.extend(
                self.scans
                    .iter()
                    .cloned()
                    .map(|members| (members, band(0, 0, 0, 0))),
            );
            for index in 0..self.components.len() {
                script.extend((1..64).map(|place| (vec![index], band(place, place, 0, 0))));
            }
            return script;
        }
        let each = (0..self.components.len()).map(|index| vec![index]);
        script.extend(
            self.scans
                .iter()
                .cloned()
                .map(|members| (members, band(0, 0, 0, 1))),
        );
        for part in [band(1, 5, 0, 2), band(6, 63, 0, 2), band(1, 63, 2, 1)] {
            script.extend(each.clone().map(|members| (members, part)));
        }
        script.extend(
            self.scans
                .iter()
                .cloned()
                .map(|members| (members, band(0, 0, 1, 0))),
        );
        script.extend(each.map(|members| (members, band(1, 63, 1, 0))));
        script
    }

    /// Samples, transforms and quantizes a component.
    fn plane(&self, part: TestComponent) -> Plane {
        let (most_across, most_down) = self.max_sampling();
        let (across, down) = part.sampling;
        let side = |pixels: usize, factor: usize, most: usize| {
            let samples = (pixels * factor).div_ceil(most);
            (samples.div_ceil(8), pixels.div_ceil(8 * most) * factor)
        };
        let (columns, stride) = side(self.width, across, most_across);
        let (rows, padded_rows) = side(self.height, down, most_down);
        let scale = [
            most_across as f64 / across as f64,
            most_down as f64 / down as f64,
        ];
        let coefficients = (0..stride * padded_rows)
            .map(|block| {
                let (left, top) = (block % stride * 8, block / stride * 8);
                quantized(|x, y| {
                    let at = |place: usize, pixels: f64| (place as f64 + 0.5) * pixels;
                    (part.value_at)(at(left + x, scale[0]), at(top + y, scale[1])) - 128.0
                })
            })
            .collect();
        Plane {
            blocks: (columns, rows),
            stride,
            coefficients,
        }
    }

    fn write_scan(&self, out: &mut Vec<u8>, planes: &[Plane], members: &[usize], band: Band) {
        let (most_across, most_down) = self.max_sampling();
        let (columns, rows) = match members {
            [only] => planes[*only].blocks,
            _ => (
                self.width.div_ceil(8 * most_across),
                self.height.div_ceil(8 * most_down),
            ),
        };
        let mut writer = ScanWriter::new(band, self.components.len(), self.progressive);
        for mcu in 0..columns * rows {
            if self.restart > 0 && mcu > 0 && mcu % self.restart == 0 {
                writer.restart(out, mcu / self.restart);
            }
            let (x, y) = (mcu % columns, mcu / columns);
            for &member in members {
                let plane = &planes[member];
                let (across, down) = match members {
                    [_] => (1, 1),
                    _ => self.components[member].sampling,
                };
                for row in y * down..(y + 1) * down {
                    for column in x * across..(x + 1) * across {
                        writer.block(member, &plane.coefficients[row * plane.stride + column]);
                    }
                }
            }
        }
        writer.flush(out);
    }
}

/// The symbols of AC coefficients: the end of a block and longer runs of empty blocks, 16 zeros,
/// and a number of zeros followed by a value of 1 to 10 bits.
pub fn ac_symbols() -> Vec<u8> {
    (0..=255).filter(|symbol| symbol & 15 <= 10).collect()
}

fn segment(out: &mut Vec<u8>, marker: u8, body: &[u8]) {
    out.extend([0xff, marker]);
    out.extend((body.len() as u16 + 2).to_be_bytes());
    out.extend(body);
}

/// The waves of the discrete cosine transform, by their frequency (T.81, A.3.3).
static WAVES: LazyLock<[[f64; 8]; 8]> = LazyLock::new(|| {
    std::array::from_fn(|frequency| {
        let scale = if frequency == 0 { 0.5_f64.sqrt() } else { 1.0 } / 2.0;
        std::array::from_fn(|at| scale * ((2 * at + 1) as f64 * frequency as f64 * PI / 16.0).cos())
    })
});

/// The quantized discrete cosine transform of a block, in zigzag order.
fn quantized(sample: impl Fn(usize, usize) -> f64) -> [i32; 64] {
    let waves = &*WAVES;
    let mut rows = [[0.0; 8]; 8];
    for (y, row) in rows.iter_mut().enumerate() {
        let samples: [f64; 8] = std::array::from_fn(|x| sample(x, y));
        for (value, wave) in row.iter_mut().zip(waves) {
            for x in 0..8 {
                *value += wave[x] * samples[x];
            }
        }
    }
    ZIGZAG.map(|place| {
        let (u, v) = (usize::from(place % 8), usize::from(place / 8));
        let mut value = 0.0;
        for y in 0..8 {
            value += waves[v][y] * rows[y][u];
        }
        (value / f64::from(QUANTIZATION)).round() as i32
    })
}

/// Writes the entropy-coded data of a scan.
struct ScanWriter {
    band: Band,
    progressive: bool,
    bits: Vec<bool>,
    /// The last DC coefficient of each component.
    previous: Vec<i32>,
    /// The number of blocks without further coefficients that have not been written.
    empty: usize,
    /// The code of each symbol.
    codes: [usize; 256],
}

impl ScanWriter {
    fn new(band: Band, components: usize, progressive: bool) -> Self {
        let mut codes = [0; 256];
        for (code, symbol) in ac_symbols().into_iter().enumerate() {
            codes[usize::from(symbol)] = code;
        }
        Self {
            band,
            progressive,
            bits: Vec::new(),
            previous: vec![0; components],
            empty: 0,
            codes,
        }
    }

    fn put(&mut self, value: usize, count: u32) {
        self.bits
            .extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    }

    fn put_symbol(&mut self, symbol: u8) {
        self.put(self.codes[usize::from(symbol)], 8);
    }

    /// Writes the bits of a value of `count` bits, which are inverted if it is negative.
    fn put_value(&mut self, value: i32, count: u32) {
        let bits = if value < 0 { value - 1 } else { value };
        self.put((bits & ((1 << count) - 1)) as usize, count);
    }

    fn block(&mut self, component: usize, coefficients: &[i32; 64]) {
        let Band { high, low, .. } = self.band;
        match (self.band.first, high) {
            (0, 0) => {
                let value = coefficients[0] >> low;
                let difference = value - std::mem::replace(&mut self.previous[component], value);
                let count = bit_length(difference);
                self.put(count as usize, 4);
                self.put_value(difference, count);
                if !self.progressive {
                    self.band.first = 1;
                    self.first_scan(coefficients);
                    self.end_blocks();
                    self.band.first = 0;
                }
            }
            (0, _) => self.put((coefficients[0] >> low & 1) as usize, 1),
            (_, 0) => self.first_scan(coefficients),
            _ => self.refinement(coefficients),
        }
    }

    fn first_scan(&mut self, coefficients: &[i32; 64]) {
        let mut zeros = 0;
        for &coefficient in &coefficients[self.band.first..=self.band.last] {
            let value = coefficient.signum() * (coefficient.abs() >> self.band.low);
            if value == 0 {
                zeros += 1;
                continue;
            }
            self.end_blocks();
            while zeros > 15 {
                self.put_symbol(0xf0);
                zeros -= 16;
            }
            let count = bit_length(value);
            self.put_symbol(zeros << 4 | count as u8);
            self.put_value(value, count);
            zeros = 0;
        }
        if zeros > 0 {
            self.empty += 1;
        }
    }

    /// Writes the runs of blocks without further coefficients.
    fn end_blocks(&mut self) {
        if self.empty > 0 {
            let count = self.empty.ilog2();
            self.put_symbol((count as u8) << 4);
            self.put(self.empty - (1 << count), count);
            self.empty = 0;
        }
    }

    fn refinement(&mut self, coefficients: &[i32; 64]) {
        let Band {
            first, last, low, ..
        } = self.band;
        let value = |place: usize| coefficients[place].abs() >> low;
        let last_new = (first..=last)
            .rfind(|&place| value(place) == 1)
            .unwrap_or(0);
        let mut zeros = 0;
        let mut corrections = Vec::new();
        for (place, coefficient) in coefficients.iter().enumerate().take(last + 1).skip(first) {
            if value(place) == 0 {
                zeros += 1;
                continue;
            }
            while zeros > 15 && place <= last_new {
                self.put_symbol(0xf0);
                self.bits.append(&mut corrections);
                zeros -= 16;
            }
            if value(place) > 1 {
                corrections.push(value(place) & 1 == 1);
                continue;
            }
            self.put_symbol(zeros << 4 | 1);
            self.bits.push(*coefficient > 0);
            self.bits.append(&mut corrections);
            zeros = 0;
        }
        if zeros > 0 || !corrections.is_empty() {
            self.put_symbol(0);
            self.bits.append(&mut corrections);
        }
    }

    fn restart(&mut self, out: &mut Vec<u8>, number: usize) {
        self.flush(out);
        self.previous.fill(0);
        out.extend([0xff, 0xd0 + ((number - 1) % 8) as u8]);
    }

    /// Writes all bits, and ones up to the end of the byte.
    fn flush(&mut self, out: &mut Vec<u8>) {
        self.end_blocks();
        for bits in std::mem::take(&mut self.bits).chunks(8) {
            let byte = (0..8).fold(0, |byte, at| {
                byte << 1 | u8::from(*bits.get(at).unwrap_or(&true))
            });
            out.push(byte);
            if byte == 0xff {
                out.push(0);
            }
        }
    }
}

fn bit_length(value: i32) -> u32 {
    32 - value.unsigned_abs().leading_zeros()
}
