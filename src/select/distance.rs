//! Great-circle distance.

/// Mean radius of the earth in kilometres.
const EARTH_RADIUS_KM: f32 = 6371.0;
const RADIANS_PER_DEGREE: f32 = (std::f64::consts::PI / 180.0) as f32;

/// A point on the earth, in degrees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Degrees north.
    pub latitude: f32,
    /// Degrees east.
    pub longitude: f32,
}

/// A point with what of every distance from it depends on it alone.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    point: Point,
    /// Cosine of the latitude.
    cosine: f64,
}

impl From<Point> for Position {
    fn from(point: Point) -> Position {
        Position { point, cosine: f64::from(point.latitude * RADIANS_PER_DEGREE).cos() }
    }
}

/// Kilometres from `a` to `b` by the haversine formula, f32.
pub fn kilometres(a: &Position, b: &Position) -> f32 {
    let half_latitude = f64::from((b.point.latitude - a.point.latitude) * RADIANS_PER_DEGREE / 2.0).sin();
    let half_longitude = f64::from((b.point.longitude - a.point.longitude) * RADIANS_PER_DEGREE / 2.0).sin();
    let square = half_latitude * half_latitude + half_longitude * half_longitude * (a.cosine * b.cosine);
    // Rounding can carry the square of antipodes beyond 1, where the root of the rest would be no number.
    let square = square.min(1.0);
    EARTH_RADIUS_KM * (2.0 * square.sqrt().atan2((1.0 - square).sqrt())) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paris_to_new_york() {
        let paris = Position::from(Point { latitude: 48.8566, longitude: 2.3522 });
        let new_york = Position::from(Point { latitude: 40.7128, longitude: -74.006 });
        assert!((kilometres(&paris, &new_york) - 5837.0).abs() < 2.0);
        assert_eq!(kilometres(&paris, &paris), 0.0);
    }

    #[test]
    fn antipodes_are_half_the_circumference_apart() {
        for latitude in -90..=90 {
            let here = Position::from(Point { latitude: latitude as f32, longitude: 10.0 });
            let there = Position::from(Point { latitude: -latitude as f32, longitude: -170.0 });
            assert!((kilometres(&here, &there) - 20015.0).abs() < 5.0, "{latitude}");
        }
    }
}
