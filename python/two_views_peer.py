"""How long other libraries take from encoded photographs to u8 views, one JSON line; `cargo xtask bench loader` runs this.

    python3 python/two_views_peer.py FOLDER LIBRARY WORK PASSES

LIBRARY: torchvision-pil (v2 transforms on PIL images), torchvision-tensor (v2 on u8 tensors, decoded by torchvision.io), opencv
(cv2 and NumPy by hand), albumentations. WORK: two-views (MoCo v2's at 224) or one-view (RandomResizedCrop and flip). Each runs
in a PyTorch DataLoader in the main process, with one thread, and stacks batches of 64. What counts is the processor time that the
process used, so that other programs on the machine do not.
"""

import io
import json
import random
import resource
import sys
from pathlib import Path

import numpy
import torch

SIZE = 224
BATCH = 64
MEANWHILE = {"num_workers": 0, "batch_size": BATCH}


def with_torchvision_pil(work):
    from PIL import Image
    from torchvision.transforms import v2

    to_image = v2.PILToTensor()
    view = torchvision_view(v2, work)

    def load(file):
        return Image.open(io.BytesIO(file)).convert("RGB")

    return load, lambda image: to_image(view(image))


def with_torchvision_tensor(work):
    from torchvision import io as image_io
    from torchvision.transforms import v2

    view = torchvision_view(v2, work)

    def load(file):
        file = torch.frombuffer(bytearray(file), dtype=torch.uint8)
        return image_io.decode_image(file, mode=image_io.ImageReadMode.RGB)

    return load, view


def torchvision_view(v2, work):
    if work == "one-view":
        return v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip()])
    return v2.Compose([
        v2.RandomResizedCrop(SIZE, scale=(0.2, 1.0)),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        v2.RandomGrayscale(p=0.2),
        v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], p=0.5),
        v2.RandomHorizontalFlip(),
    ])  # fmt: skip


def opencv_load(file):
    import cv2

    image = cv2.imdecode(numpy.frombuffer(file, numpy.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def with_opencv(work):
    import cv2

    cv2.setNumThreads(1)
    scale = (0.08, 1.0) if work == "one-view" else (0.2, 1.0)

    def crop(image):
        height, width = image.shape[:2]
        for _ in range(10):
            area = height * width * random.uniform(*scale)
            ratio = numpy.exp(random.uniform(numpy.log(3 / 4), numpy.log(4 / 3)))
            w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                top, left = random.randint(0, height - h), random.randint(0, width - w)
                image = image[top : top + h, left : left + w]
                break
        return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA if image.shape[0] > SIZE else cv2.INTER_LINEAR)

    def hue(image):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        shift = round(random.uniform(-0.1, 0.1) * 180)
        hsv[..., 0] = cv2.LUT(hsv[..., 0], ((numpy.arange(256) + shift) % 180).astype(numpy.uint8))
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    def contrast(image):
        factor = random.uniform(0.6, 1.4)
        mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
        return cv2.convertScaleAbs(image, alpha=factor, beta=0) if mean == 0 else cv2.LUT(
            image, numpy.clip((numpy.arange(256) - mean) * factor + mean, 0, 255).astype(numpy.uint8))  # fmt: skip

    def saturation(image):
        factor = random.uniform(0.6, 1.4)
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(image, factor, grey, 1 - factor, 0)

    def brightness(image):
        return cv2.convertScaleAbs(image, alpha=random.uniform(0.6, 1.4), beta=0)

    def view(image):
        image = crop(image)
        if work == "two-views":
            if random.random() < 0.8:
                for adjust in random.sample([brightness, contrast, saturation, hue], 4):
                    image = adjust(image)
            if random.random() < 0.2:
                image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            if random.random() < 0.5:
                image = cv2.GaussianBlur(image, (23, 23), random.uniform(0.1, 2.0))
        if random.random() < 0.5:
            image = cv2.flip(image, 1)
        return torch.from_numpy(image)

    return opencv_load, view


def with_albumentations(work):
    import albumentations
    import cv2

    cv2.setNumThreads(1)
    if work == "one-view":
        steps = [albumentations.RandomResizedCrop((SIZE, SIZE)), albumentations.HorizontalFlip()]
    else:
        steps = [
            albumentations.RandomResizedCrop((SIZE, SIZE), scale=(0.2, 1.0)),
            albumentations.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=0.8),
            albumentations.ToGray(p=0.2),
            albumentations.GaussianBlur(blur_limit=(23, 23), sigma_limit=(0.1, 2.0), p=0.5),
            albumentations.HorizontalFlip(),
        ]
    compose = albumentations.Compose(steps)
    return opencv_load, lambda image: torch.from_numpy(compose(image=image)["image"])


LIBRARIES = {
    "torchvision-pil": with_torchvision_pil,
    "torchvision-tensor": with_torchvision_tensor,
    "opencv": with_opencv,
    "albumentations": with_albumentations,
}


class Views(torch.utils.data.Dataset):
    def __init__(self, files, library, work):
        self.files = files
        self.load, self.view = LIBRARIES[library](work)
        self.views = 2 if work == "two-views" else 1

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        image = self.load(self.files[index].read_bytes())
        return [self.view(image) for _ in range(self.views)]


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    folder, library, work, passes = sys.argv[1:]
    torch.set_num_threads(1)
    random.seed(0)
    torch.manual_seed(0)
    files = sorted(Path(folder).glob("*.jpg"))
    dataset = Views(files, library, work)
    for index in range(8):
        dataset[index]
    loader = torch.utils.data.DataLoader(dataset, shuffle=True, **MEANWHILE)
    start, images = cpu_seconds(), 0
    for _ in range(int(passes)):
        for views in loader:
            images += len(views[0])
    print(json.dumps({"images": images, "cpu_seconds": cpu_seconds() - start}))


if __name__ == "__main__":
    main()
