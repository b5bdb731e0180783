//! Lowers the scheduling priority of background threads.

use rustix::process::{getpriority_process, setpriority_process};

/// Steps of priority between who answers and who does not: the kernel lets the one run as soon as it has something to do, and
/// gives the other a quarter of a core that both are after for long.
const STEPS: i32 = 5;
/// The lowest priority.
const LOWEST: i32 = 19;

/// Lowers the priority of the calling thread, and of the threads and processes that it starts from now on.
pub fn give_way() {
    // Linux has a priority for each thread, and takes no process for the calling one. Where it does not let itself be asked,
    // as under some security filters, everything keeps working.
    if let Ok(priority) = getpriority_process(None) {
        let _ = setpriority_process(None, (priority + STEPS).min(LOWEST));
    }
}

/// Has the calling thread run when no other has something to do: any other that wakes up takes its core at once, where a thread
/// of low priority keeps it for some milliseconds. Beside threads that are busy all the time it gets 0.3 % of a core.
///
/// Not for a thread that holds a lock which others wait for.
pub fn run_when_idle() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads `parameters`, which lives as long as the call. Process 0 is the calling thread.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if set != 0 {
        give_way();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn only_the_calling_thread_and_what_it_starts_give_way() {
        let priority = || getpriority_process(None).unwrap();
        let before = priority();
        let lowered = thread::spawn(move || {
            give_way();
            (priority(), thread::spawn(priority).join().unwrap())
        });
        let expected = (before + STEPS).min(LOWEST);
        assert_eq!(lowered.join().unwrap(), (expected, expected));
        assert_eq!(priority(), before);
    }

    #[test]
    fn only_the_calling_thread_waits_for_idle_cores() {
        // SAFETY: it reads and writes nothing.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let lowered = thread::spawn(move || {
            run_when_idle();
            policy()
        });
        assert_eq!(lowered.join().unwrap(), libc::SCHED_IDLE);
        assert_eq!(policy(), before);
    }
}
