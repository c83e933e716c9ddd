"""What every method is measured against: statistics of real test images, and two upper bounds.

    python -m stages.references

Upper bounds: real images themselves (training against test images), and the unimodal VAEs' reconstructions.
"""

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from stages.lib import artifacts, data, evaluation, features, networks, params, posteriors, runtime

OUT = Path("results/references")


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    p = params.load()
    runtime.begin("references")
    device = runtime.setup(p.threads)
    test, train = (data.load_split(split, device) for split in ("test", "train"))
    judges = evaluation.load_judges(test, device)
    extract = features.extractor(p, device)
    mean, logvar, _ = data.load_latents("test", device)
    index = evaluation.test_tuples(p, len(test), device)
    noise = torch.randn(mean[index].shape, generator=runtime.generator(device, "references", p.seed), device=device)
    z = posteriors.sample(mean[index], logvar[index], noise)  # n, M, d

    rows, statistics, samples = [], {}, {}
    figure = evaluation.figure_rows(test.labels[index])
    for m, name in enumerate(tqdm(test.modalities, "references", unit="modality", disable=not sys.stderr.isatty())):
        decoder = artifacts.load_module(f"models/vae/{name}/decoder.safetensors", networks.Decoder, device)
        reference = evaluation.statistics(evaluation.features_of(test.images[name], extract, p))
        statistics.update({f"real/{name}/{part}": value for part, value in zip(evaluation.PARTS, reference)})
        decode = lambda rows: data.to_uint8(decoder(z[rows, m]))
        sources = {"real": lambda rows: train.images[name][rows], "unimodal_vae": decode}
        labels = {"real": train.labels[: len(index)], "unimodal_vae": test.labels[index]}
        for source, images_of in sources.items():
            images, predicted, found = evaluation.judge_and_extract(images_of, len(labels[source]), judges[name], extract, p)
            rows.append({"method": source, "target": name, **evaluation.measure(
                predicted, labels[source], found, reference, features.distance_name(p))})
            if source == "unimodal_vae":
                statistics.update({f"vae/{name}/{part}": v for part, v in zip(evaluation.PARTS, evaluation.statistics(found))})
                samples[name] = images[figure]
            print(f"references: {rows[-1]}", flush=True)
    with artifacts.together():
        artifacts.save_tensors(OUT / "statistics.safetensors", {k: torch.as_tensor(v) for k, v in statistics.items()})
        for name, images in samples.items():
            artifacts.save_array(OUT / f"reconstructions_{name}.npy", images.cpu().numpy())
        artifacts.save_json(OUT / "results.json", {"rows": rows, **evaluation.about(p, device)})


if __name__ == "__main__":
    runtime.run(main)
