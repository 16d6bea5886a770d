//! Memory for large tables that are read here and there.

/// From so many bytes on large pages are asked for.
const LARGE: usize = 4 << 20;
/// Advice is given for whole pages.
const PAGE: usize = 4096;

/// An empty list with room for `count` elements. Where it is large the kernel is asked for large pages: with those of 4 KiB a look
/// at a random element waits once more, for the page table. A kernel that has none gives small ones.
pub fn room_for<T>(count: usize) -> Vec<T> {
    let list = Vec::<T>::with_capacity(count);
    let bytes = list.capacity() * size_of::<T>();
    if bytes >= LARGE {
        let start = list.as_ptr().cast::<u8>();
        let skipped = start.align_offset(PAGE).min(bytes);
        let len = (bytes - skipped) / PAGE * PAGE;
        // SAFETY: the range lies in the list's own memory, and the advice changes nothing of what is there.
        unsafe { libc::madvise(start.add(skipped).cast_mut().cast(), len, libc::MADV_HUGEPAGE) };
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_any_size_is_a_list() {
        for count in [0, 1, LARGE - 1, LARGE, 3 * LARGE + 5] {
            let mut list = room_for::<u8>(count);
            assert!(list.is_empty() && list.capacity() >= count);
            list.resize(count, 7);
            assert!(list.iter().all(|byte| *byte == 7));
        }
    }
}
