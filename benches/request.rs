//! What our own code costs per request, step by step and as a whole, without sockets.
//!
//! The sizes show whether the cost grows with files and mirrors, and with the sets of mirrors that files are on.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

mod steps;
mod world;

use steps::STEPS;
use world::{Size, World};

const SIZES: [Size; 3] = [
    Size { files: 10_000, mirrors: 50, sets: 1 },
    Size { files: 1_000_000, mirrors: 400, sets: 1 },
    Size { files: 1_000_000, mirrors: 400, sets: 2000 },
];

fn requests(criterion: &mut Criterion) {
    for size in SIZES {
        let world = World::new(size);
        let mut group = criterion.benchmark_group("request");
        for step in STEPS {
            steps::with(&world, step, |once| {
                group.bench_function(BenchmarkId::new(step, size), |bench| bench.iter(&mut *once));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
