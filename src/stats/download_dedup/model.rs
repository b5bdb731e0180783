//! Nodes, requests, collections, Redis and the way there, in any order: what counts is compared with what was downloaded.

use std::time::{Duration, Instant};

use mb_core::store::known_downloads::KnownDownloads;
use proptest::prelude::*;

use super::*;

const NODES: usize = 3;
const DOWNLOADS: u128 = 2;
const INTERVAL: Duration = Duration::from_secs(600);

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A node answers a request for a part of a download.
    Request(usize, u128),
    /// A node collects, and asks the store.
    Collect(usize),
    /// The store gets the oldest question of a node.
    Arrive(usize),
    /// A node gets the oldest answer on its way to it.
    Answer(usize),
    /// The latest question of a node, or the answer to it, is lost, and the node is told so.
    Lose(usize),
    /// A node waits for its answer no longer.
    GiveUp(usize),
    /// Redis starts anew, and has forgotten everything.
    Forget,
    /// All downloads are over: an interval, and more, goes by.
    Expire,
}

fn steps(disturbed: bool) -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..NODES;
    let usual = prop_oneof![
        4 => (node(), 0..DOWNLOADS).prop_map(|(node, download)| Step::Request(node, download)),
        3 => node().prop_map(Step::Collect),
        3 => node().prop_map(Step::Arrive),
        3 => node().prop_map(Step::Answer),
        1 => Just(Step::Expire),
    ];
    let disturbances = prop_oneof![node().prop_map(Step::Lose), node().prop_map(Step::GiveUp), Just(Step::Forget),];
    let weight = u32::from(disturbed);
    prop::collection::vec(prop_oneof![5 => usual, weight => disturbances], 0..80)
}

#[derive(Default)]
struct Node {
    dedup: DownloadDedup<u128>,
    received: Vec<(u128, Instant)>,
    to_store: Vec<Question>,
    from_store: Vec<(u64, Vec<bool>)>,
    /// By download, since the last expiry.
    counted: HashMap<u128, u64>,
}

impl Node {
    fn count(&mut self, downloads: Vec<u128>) {
        downloads.into_iter().for_each(|download| *self.counted.entry(download).or_default() += 1);
    }

    fn collect(&mut self) {
        for (download, at) in self.received.drain(..) {
            self.dedup.note(download, at, INTERVAL, || download);
        }
        self.to_store.extend(self.dedup.question());
    }

    fn arrive(&mut self, redis: &mut KnownDownloads) {
        if !self.to_store.is_empty() {
            let question = self.to_store.remove(0);
            self.from_store.push((question.number, redis.note(&question.sightings)));
        }
    }

    fn answer(&mut self) {
        if !self.from_store.is_empty() {
            let (number, new) = self.from_store.remove(0);
            let counted = self.dedup.answered(number, Some(&new));
            self.count(counted);
        }
    }

    /// Everything that is on its way gets where it goes.
    fn complete(&mut self, redis: &mut KnownDownloads) {
        for _ in 0..3 {
            self.collect();
            while !self.to_store.is_empty() || !self.from_store.is_empty() {
                self.arrive(redis);
                self.answer();
            }
        }
    }
}

/// Plays `steps`. Whenever all downloads are over, `check` gets how often each node answered a part of one, and how often it
/// counted it.
fn play(steps: &[Step], check: impl Fn(&[(u64, u64)]) -> Result<(), TestCaseError>) -> Result<(), TestCaseError> {
    let mut redis = KnownDownloads::default();
    let mut nodes: [Node; NODES] = Default::default();
    let mut requests: HashMap<(usize, u128), u64> = HashMap::new();
    let mut now = Instant::now();
    for step in steps.iter().chain([&Step::Expire]) {
        now += Duration::from_millis(10);
        match *step {
            Step::Request(node, download) => {
                nodes[node].received.push((download, now));
                *requests.entry((node, download)).or_default() += 1;
            }
            Step::Collect(node) => nodes[node].collect(),
            Step::Arrive(node) => nodes[node].arrive(&mut redis),
            Step::Answer(node) => nodes[node].answer(),
            Step::Lose(node) => {
                let node = &mut nodes[node];
                let lost = node.to_store.pop().map(|question| question.number);
                if let Some(number) = lost.or_else(|| node.from_store.pop().map(|(number, _)| number)) {
                    let counted = node.dedup.answered(number, None);
                    node.count(counted);
                }
            }
            Step::GiveUp(node) => {
                let counted = nodes[node].dedup.decide_alone();
                nodes[node].count(counted);
            }
            Step::Forget => redis = KnownDownloads::default(),
            Step::Expire => {
                nodes.iter_mut().for_each(|node| node.complete(&mut redis));
                for download in 0..DOWNLOADS {
                    let of_nodes: Vec<(u64, u64)> = (0..NODES)
                        .map(|node| {
                            let requests = requests.get(&(node, download)).copied().unwrap_or(0);
                            (requests, nodes[node].counted.get(&download).copied().unwrap_or(0))
                        })
                        .collect();
                    check(&of_nodes)?;
                }
                requests.clear();
                nodes.iter_mut().for_each(|node| node.counted.clear());
                now += 2 * INTERVAL;
            }
        }
    }
    Ok(())
}

proptest! {
    /// With the store there, each download counts once over all nodes, in whatever order everything comes.
    #[test]
    fn a_download_counts_once_over_all_nodes(steps in steps(false)) {
        play(&steps, |of_nodes| {
            let expected = u64::from(of_nodes.iter().any(|(requests, _)| *requests > 0));
            prop_assert_eq!(of_nodes.iter().map(|(_, counted)| counted).sum::<u64>(), expected, "{:?}", of_nodes);
            Ok(())
        })?;
    }

    /// Whatever is lost or late, a download counts once at least, and once at most on each node that answered a part of it.
    #[test]
    fn without_the_store_a_download_counts_at_most_once_on_each_node(steps in steps(true)) {
        play(&steps, |of_nodes| {
            for (requests, counted) in of_nodes {
                prop_assert!(*counted <= (*requests).min(1), "{:?}", of_nodes);
            }
            let requested = of_nodes.iter().any(|(requests, _)| *requests > 0);
            prop_assert_eq!(requested, of_nodes.iter().any(|(_, counted)| *counted > 0), "{:?}", of_nodes);
            Ok(())
        })?;
    }
}
