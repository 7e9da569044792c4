"""A picture that is pleasant to look at, for the browser to show."""

from pathlib import Path

from PIL import Image, ImageDraw


def draw_hills(path: Path) -> None:
    """Hills, a house and a sun: 960 x 640."""
    image = Image.new("RGB", (960, 640))
    draw = ImageDraw.Draw(image)
    for y in range(640):  # the sky
        t = y / 640
        draw.line([(0, y), (960, y)], fill=(int(150 + 90 * t), int(200 + 30 * t), 240))
    draw.ellipse([690, 70, 800, 180], fill="#ffd978")
    draw.polygon([(0, 400), (250, 170), (480, 400)], fill="#8fa6b5")
    draw.polygon([(260, 400), (560, 230), (880, 400)], fill="#76909f")
    draw.ellipse([-260, 340, 620, 900], fill="#8dbb76")
    draw.ellipse([300, 370, 1240, 980], fill="#6ea25c")
    draw.rectangle([470, 340, 640, 470], fill="#f0e2cc")
    draw.polygon([(445, 345), (555, 255), (665, 345)], fill="#b5583f")
    draw.rectangle([535, 395, 580, 470], fill="#7a5a44")
    for x in (488, 598):
        draw.rectangle([x, 370, x + 28, 400], fill="#9cc4d8", outline="#fff8ea", width=3)
    for x, y in ((220, 400), (290, 430), (760, 430), (840, 470)):
        draw.rectangle([x - 6, y, x + 6, y + 45], fill="#6b4f3a")
        draw.ellipse([x - 38, y - 72, x + 38, y + 14], fill="#3f7d4f")
    image.save(path)
