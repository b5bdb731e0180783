//! Memory asked for ahead of its use, so that it is on its way while other work is done.
//!
//! A request reads a few places in tables larger than a processor's caches, each found through the one before. Waiting for
//! them one after another would be most of what it costs.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for the cache line that `value` begins in.
#[inline]
pub fn prefetch<T>(value: &T) {
    line(std::ptr::from_ref(value).cast());
}

/// Asks for the first `bytes` of `value`, or all of it when it is smaller.
#[inline]
pub fn prefetch_bytes<T>(value: &T, bytes: usize) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    for offset in (0..bytes.min(size_of::<T>())).step_by(LINE) {
        line(start.wrapping_add(offset));
    }
}

#[inline]
fn line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and cannot fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
