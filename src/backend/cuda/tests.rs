//! The suite of every backend, on the machine's GPU or on the emulated one.

#[path = "../../../tests/cuda_emu/mod.rs"]
mod cuda_emu;

use super::Cuda;
use crate::backend::conformance::check_backend;
use crate::backend::{Backend, View, ViewMut};

#[test]
fn the_gpu_agrees_with_the_oracle() {
    if cuda_emu::ready() {
        check_backend(|| Cuda::new(0).expect("a GPU"));
    }
}

#[test]
fn an_upload_may_be_overwritten_on_the_host_at_once() {
    if !cuda_emu::ready() {
        return;
    }
    let cuda = Cuda::new(0).expect("a GPU");
    let len = 300_000;
    let mut buf = cuda.alloc(3 * len).expect("memory");
    // More than the staging memory holds at a time, and an upload that does not go through it.
    let mut host = vec![0.0; len];
    for round in 0..9 {
        let count = if round == 4 { len } else { len / 2 };
        host.fill(round as f32);
        let offset = round % 3 * len;
        let dst = ViewMut {
            buf: &mut buf,
            offset,
            len: count,
        };
        cuda.upload(dst, &host[..count]);
    }
    host.fill(-1.0);
    let mut all = vec![0.0; 3 * len];
    let src = View {
        buf: &buf,
        offset: 0,
        len: all.len(),
    };
    cuda.download(src, &mut all);
    for (part, first) in all.chunks(len).zip([6.0, 7.0, 8.0]) {
        assert!(part[..len / 2].iter().all(|&x| x == first));
    }
    assert!(all[len + len / 2..2 * len].iter().all(|&x| x == 4.0));
}
