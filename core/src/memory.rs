//! What makes memory quicker to reach: asked for ahead of its use, and in large pages.
//!
//! A request reads a few places in tables larger than a processor's caches, each found through the one before. Waiting for
//! them one after another would be most of what it costs.

use rustix::mm::{Advice, madvise};

/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes of a small page.
const PAGE: usize = 4096;

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

/// A vector that never grows beyond `capacity`, so that its memory never moves, in huge pages where the kernel has them:
/// random places in it then take fewer looks into the page table. Pages come as they are used.
pub fn vec_in_huge_pages<T>(capacity: usize) -> Vec<T> {
    let mut values = Vec::<T>::with_capacity(capacity);
    let spare = values.spare_capacity_mut();
    let start = spare.as_mut_ptr().cast::<u8>();
    // The kernel takes whole pages only.
    let skipped = start.align_offset(PAGE).min(size_of_val(spare));
    let length = (size_of_val(spare) - skipped) / PAGE * PAGE;
    if length > 0 {
        // SAFETY: the range lies in the vector's own memory, and this advice changes no byte of it.
        let advised = unsafe { madvise(start.wrapping_add(skipped).cast(), length, Advice::LinuxHugepage) };
        // Small pages do, too.
        let _ = advised;
    }
    values
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_in_huge_pages_is_one_like_any_other() {
        for capacity in [0, 1, 3000, 1 << 20] {
            let mut values = vec_in_huge_pages::<u32>(capacity);
            let start = values.as_ptr();
            values.extend(0..capacity as u32);
            assert!(values.iter().copied().eq(0..capacity as u32));
            assert_eq!(values.as_ptr(), start);
        }
    }
}
