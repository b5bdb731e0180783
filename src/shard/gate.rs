//! Whether connections to an address are accepted: the control thread orders, acceptors in all shards obey and acknowledge.
//!
//! An acceptor says that it accepts *before* it looks at the order, and the order is given *before* the acceptors are counted:
//! whichever comes first, none accepts unnoticed. One that waits, for a connection or to be let accept, is woken by every order.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use atomic_waker::AtomicWaker;

/// What acceptors are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Accept.
    Accept,
    /// Accept nothing and leave the queue as it is: another process is to have it, or may give it back.
    Stand,
    /// Accept what is queued, then end.
    Close,
}

/// The order for one address, and how many obey.
#[derive(Debug)]
pub struct Gate {
    order: AtomicU8,
    accepting: AtomicUsize,
    /// What wakes each acceptor.
    bells: Mutex<Vec<Arc<AtomicWaker>>>,
}

impl Gate {
    /// A gate with `order` and nobody to obey.
    pub fn new(order: Order) -> Arc<Gate> {
        Arc::new(Gate { order: AtomicU8::new(order as u8), accepting: AtomicUsize::new(0), bells: Mutex::default() })
    }

    /// The order.
    pub fn order(&self) -> Order {
        match self.order.load(Ordering::SeqCst) {
            0 => Order::Accept,
            1 => Order::Stand,
            _ => Order::Close,
        }
    }

    /// Gives an order, and wakes every acceptor.
    pub fn give(&self, order: Order) {
        self.order.store(order as u8, Ordering::SeqCst);
        for bell in self.bells().iter() {
            bell.wake();
        }
    }

    /// How many acceptors there are, whatever they do.
    pub fn attended(&self) -> usize {
        self.bells().len()
    }

    /// How many of them may be accepting.
    pub fn accepting(&self) -> usize {
        self.accepting.load(Ordering::SeqCst)
    }

    /// Adds an acceptor, which stands at first.
    pub fn attend(self: &Arc<Gate>) -> Attendance {
        let bell = Arc::new(AtomicWaker::new());
        self.bells().push(bell.clone());
        Attendance { gate: self.clone(), accepting: AtomicBool::new(false), bell }
    }

    fn bells(&self) -> MutexGuard<'_, Vec<Arc<AtomicWaker>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One acceptor at a gate; gone when dropped.
#[derive(Debug)]
pub struct Attendance {
    gate: Arc<Gate>,
    /// Only the acceptor's own thread changes this.
    accepting: AtomicBool,
    bell: Arc<AtomicWaker>,
}

impl Attendance {
    /// What to do now. Until it is asked again, an acceptor that is told to accept counts as accepting.
    pub fn order(&self) -> Order {
        self.say(true);
        let order = self.gate.order();
        if order != Order::Accept {
            self.say(false);
        }
        order
    }

    /// Waits until the order is no more `order`. One task at a time may wait.
    pub async fn changed(&self, order: Order) {
        poll_fn(|context| {
            self.bell.register(context.waker());
            if self.gate.order() == order { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    fn say(&self, accepting: bool) {
        if self.accepting.swap(accepting, Ordering::SeqCst) == accepting {
            return;
        }
        if accepting {
            self.gate.accepting.fetch_add(1, Ordering::SeqCst);
        } else {
            self.gate.accepting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.say(false);
        self.gate.bells().retain(|bell| !Arc::ptr_eq(bell, &self.bell));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use futures_lite::future;

    use super::*;

    #[test]
    fn acceptors_are_counted_by_what_they_were_last_told() {
        let gate = Gate::new(Order::Stand);
        let [one, other] = [gate.attend(), gate.attend()];
        assert_eq!((gate.attended(), gate.accepting()), (2, 0));
        assert_eq!(one.order(), Order::Stand);
        gate.give(Order::Accept);
        assert_eq!([one.order(), one.order(), other.order()], [Order::Accept; 3]);
        assert_eq!(gate.accepting(), 2);
        gate.give(Order::Close);
        assert_eq!(gate.accepting(), 2, "until they have seen it");
        assert_eq!(one.order(), Order::Close);
        assert_eq!(gate.accepting(), 1);
        drop(other);
        assert_eq!((gate.attended(), gate.accepting()), (1, 0));
    }

    #[test]
    fn an_order_wakes_who_waits_for_it() {
        let gate = Gate::new(Order::Stand);
        let [one, other] = [gate.attend(), gate.attend()];
        thread::scope(|scope| {
            for attendance in [&one, &other] {
                scope.spawn(|| future::block_on(attendance.changed(Order::Stand)));
            }
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                gate.give(Order::Accept);
            });
        });
        assert_eq!([one.order(), other.order()], [Order::Accept; 2]);
        assert!(future::block_on(future::poll_once(one.changed(Order::Accept))).is_none());
    }

    #[test]
    fn nobody_accepts_after_all_were_seen_to_stand() {
        let gate = Gate::new(Order::Accept);
        let stood = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                let attendance = gate.attend();
                let stood = &stood;
                scope.spawn(move || {
                    loop {
                        match attendance.order() {
                            Order::Accept => assert!(!stood.load(Ordering::SeqCst)),
                            Order::Stand => thread::yield_now(),
                            Order::Close => break,
                        }
                    }
                });
            }
            for _ in 0..1000 {
                gate.give(Order::Stand);
                while gate.accepting() > 0 {
                    thread::yield_now();
                }
                stood.store(true, Ordering::SeqCst);
                std::hint::spin_loop();
                stood.store(false, Ordering::SeqCst);
                gate.give(Order::Accept);
            }
            gate.give(Order::Close);
        });
        assert_eq!((gate.attended(), gate.accepting()), (0, 0));
    }
}
