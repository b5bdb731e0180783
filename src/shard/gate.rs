//! Whether connections to an address are accepted: the control thread orders, acceptors in all shards obey and acknowledge.
//!
//! An acceptor says that it accepts *before* it looks at the order, and the order is given *before* the acceptors are counted:
//! whichever comes first, none accepts unnoticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

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
    attended: AtomicUsize,
    accepting: AtomicUsize,
}

impl Gate {
    /// A gate with `order` and nobody to obey.
    pub fn new(order: Order) -> Arc<Gate> {
        Arc::new(Gate {
            order: AtomicU8::new(order as u8),
            attended: AtomicUsize::new(0),
            accepting: AtomicUsize::new(0),
        })
    }

    /// The order.
    pub fn order(&self) -> Order {
        match self.order.load(Ordering::SeqCst) {
            0 => Order::Accept,
            1 => Order::Stand,
            _ => Order::Close,
        }
    }

    /// Gives an order.
    pub fn give(&self, order: Order) {
        self.order.store(order as u8, Ordering::SeqCst);
    }

    /// How many acceptors there are, whatever they do.
    pub fn attended(&self) -> usize {
        self.attended.load(Ordering::SeqCst)
    }

    /// How many of them may be accepting.
    pub fn accepting(&self) -> usize {
        self.accepting.load(Ordering::SeqCst)
    }

    /// Adds an acceptor, which stands at first.
    pub fn attend(self: &Arc<Gate>) -> Attendance {
        self.attended.fetch_add(1, Ordering::SeqCst);
        Attendance { gate: self.clone(), accepting: AtomicBool::new(false) }
    }
}

/// One acceptor at a gate; gone when dropped.
#[derive(Debug)]
pub struct Attendance {
    gate: Arc<Gate>,
    /// Only the acceptor's own thread changes this.
    accepting: AtomicBool,
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
        self.gate.attended.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
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
    fn nobody_accepts_after_all_were_seen_to_stand() {
        let gate = Gate::new(Order::Accept);
        let stood = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let attendance = gate.attend();
                let stood = &stood;
                scope.spawn(move || {
                    loop {
                        match attendance.order() {
                            Order::Accept => assert!(!stood.load(Ordering::SeqCst)),
                            Order::Stand => std::thread::yield_now(),
                            Order::Close => break,
                        }
                    }
                });
            }
            for _ in 0..1000 {
                gate.give(Order::Stand);
                while gate.accepting() > 0 {
                    std::thread::yield_now();
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
