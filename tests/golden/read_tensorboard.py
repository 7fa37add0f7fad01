"""Reads TensorBoard event files back with TensorBoard itself and prints what is in them, by hand:

    unforget train --out run && python read_tensorboard.py run/tensorboard [--save DIR]

Stops with an error where TensorBoard finds a damaged record or no events. `--save` writes the pictures.
"""

import argparse
import collections
import io
import pathlib

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="the folder with the event files")
    parser.add_argument("--save", type=pathlib.Path, metavar="DIR", help="write the pictures there")
    options = parser.parse_args()
    files = sorted(options.folder.glob("*tfevents*"))
    assert files, f"no event files in {options.folder}"
    for file in files:
        kinds, end = collections.Counter(), 0
        for event in LegacyEventFileLoader(str(file)).Load():
            # A record is its data and 16 bytes around it: summed up, nothing may be left over.
            end += event.ByteSize() + 16
            kinds[event.WhichOneof("what")] += 1
        assert end == file.stat().st_size, f"{file.name}: {end} of {file.stat().st_size} bytes are whole records"
        print(f"{file.name}: {end} bytes, {dict(kinds)}")

    everything = {kind: 0 for kind in ("scalars", "histograms", "images", "tensors")}
    events = EventAccumulator(str(options.folder), size_guidance=everything).Reload()
    tags = events.Tags()
    print("file version", events.file_version)
    for tag in tags["scalars"]:
        values = events.Scalars(tag)
        head = ", ".join(f"{v.step}: {v.value:.6g}" for v in values[:3])
        print(f"scalar {tag}: {len(values)} values, {head}{', ...' if len(values) > 3 else ''}")
    for tag in tags["histograms"]:
        for event in events.Histograms(tag):
            h = event.histogram_value
            print(f"histogram {tag}: step {event.step}, {h.num:g} values, {h.min:g} to {h.max:g}, sum {h.sum:g}, "
                  f"{len(h.bucket)} buckets with {sum(h.bucket):g}")
    for tag in tags["images"]:
        for event in events.Images(tag):
            picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
            assert picture.shape == (event.height, event.width, 3), picture.shape
            print(f"image {tag}: step {event.step}, {event.width}x{event.height}, mean {picture.mean():.4g}")
            if options.save:
                options.save.mkdir(parents=True, exist_ok=True)
                name = f"{tag.replace('/', '_')}-{event.step}.png"
                (options.save / name).write_bytes(event.encoded_image_string)


if __name__ == "__main__":
    main()
