//! Strokes of a glyph, as signed distances.

use std::f32::consts::{PI, TAU};

/// A line or an area, in heights of a glyph from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stroke {
    /// A straight line between two points.
    Segment { from: [f32; 2], to: [f32; 2] },
    /// A part of a circle, which begins at an angle and extends clockwise by another one.
    Arc {
        center: [f32; 2],
        radius: f32,
        from: f32,
        sweep: f32,
    },
    /// A filled circle.
    Disk { center: [f32; 2], radius: f32 },
}

impl Stroke {
    /// Returns the distance of a point to the stroke of a thickness; negative inside.
    pub(super) fn distance(&self, point: [f32; 2], thickness: f32) -> f32 {
        match *self {
            Self::Segment { from, to } => {
                let (along, ahead) = (difference(to, from), difference(point, from));
                let length = along[0] * along[0] + along[1] * along[1];
                let share = (along[0] * ahead[0] + along[1] * ahead[1]) / length.max(1e-12);
                let share = share.clamp(0.0, 1.0);
                let nearest = [from[0] + along[0] * share, from[1] + along[1] * share];
                distance(point, nearest) - thickness / 2.0
            }
            Self::Arc {
                center,
                radius,
                from,
                sweep,
            } => {
                let [x, y] = difference(point, center);
                let behind = (y.atan2(x) - from).rem_euclid(TAU);
                if behind <= sweep {
                    return (x.hypot(y) - radius).abs() - thickness / 2.0;
                }
                let end = if behind - sweep < (TAU - sweep) / 2.0 {
                    from + sweep
                } else {
                    from
                };
                let end = [
                    center[0] + radius * end.cos(),
                    center[1] + radius * end.sin(),
                ];
                distance(point, end) - thickness / 2.0
            }
            Self::Disk { center, radius } => distance(point, center) - radius,
        }
    }

    /// Returns a circle.
    pub(super) fn ring(center: [f32; 2], radius: f32) -> Self {
        Self::Arc {
            center,
            radius,
            from: -PI,
            sweep: TAU,
        }
    }
}

fn difference(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    [a[0] - b[0], a[1] - b[1]]
}

fn distance(a: [f32; 2], b: [f32; 2]) -> f32 {
    let [x, y] = difference(a, b);
    x.hypot(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f32, expected: f32) {
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }

    #[test]
    fn distances_follow_geometry() {
        let segment = Stroke::Segment {
            from: [0.0, 0.0],
            to: [1.0, 0.0],
        };
        near(segment.distance([0.5, 0.3], 0.2), 0.2);
        near(segment.distance([1.3, 0.4], 0.2), 0.4);
        near(segment.distance([0.2, 0.0], 0.2), -0.1);
        // The right half of a circle.
        let arc = Stroke::Arc {
            center: [0.0, 0.0],
            radius: 1.0,
            from: -PI / 2.0,
            sweep: PI,
        };
        near(arc.distance([2.0, 0.0], 0.0), 1.0);
        near(arc.distance([0.5, 0.0], 0.0), 0.5);
        near(arc.distance([-1.0, 1.0], 0.0), 1.0);
        near(arc.distance([-1.0, -1.0], 0.0), 1.0);
        near(
            Stroke::ring([0.0, 0.0], 1.0).distance([-3.0, 0.0], 0.0),
            2.0,
        );
        let disk = Stroke::Disk {
            center: [1.0, 1.0],
            radius: 0.5,
        };
        near(disk.distance([1.0, 1.0], 0.0), -0.5);
    }
}
