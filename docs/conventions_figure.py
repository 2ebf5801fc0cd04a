"""The figure of the page on conventions: pixels and angles on a small image, and the same image on the sky."""


def draw():
    import numpy as np
    from matplotlib import pyplot as plt
    from matplotlib.patches import Arc, Ellipse

    columns, rows, scale = 9, 7, 0.1
    figure, (pixels, lens) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")

    y, x = np.indices((rows, columns))
    pixels.imshow((x + y) % 2, origin="lower", cmap="Greys", vmin=-0.3, vmax=8)
    for column, row in [(0, 0), (columns - 1, 0), (0, rows - 1)]:
        text = f"({column}, {row})"
        pixels.plot(column, row, "k.", markersize=5)
        pixels.annotate(text, (column, row), xytext=(0, 6), textcoords="offset points", ha="center", fontsize="small")
    middle = (columns - 1) / 2, (rows - 1) / 2
    pixels.plot(*middle, "+", color="tab:red", markersize=12, markeredgewidth=2)
    pixels.annotate(
        f"image centre\n({middle[0]:g}, {middle[1]:g})", middle, xytext=(0, 12), textcoords="offset points",
        ha="center", color="tab:red", fontsize="small",
    )
    pixels.set(title="pixels: (x, y), data[y, x]", xlabel="x, towards +column", ylabel="y, towards +row")
    pixels.set_xticks(range(columns))
    pixels.set_yticks(range(rows))

    half_x, half_y = columns * scale / 2, rows * scale / 2
    phi, axis_ratio = 30.0, 0.6
    lens.add_patch(Ellipse((0, 0), 0.5, 0.5 * axis_ratio, angle=phi, fill=False, color="tab:blue", linewidth=2))
    direction = np.array([np.cos(np.deg2rad(phi)), np.sin(np.deg2rad(phi))])
    lens.plot(*np.column_stack([[0, 0], 0.34 * direction]), color="tab:blue", linestyle="--")
    lens.plot([0, 0.34], [0, 0], color="0.4", linestyle="--")
    lens.add_patch(Arc((0, 0), 0.34, 0.34, theta1=0, theta2=phi, color="tab:blue"))
    lens.annotate(r"$\phi$", (0.185, 0.035), color="tab:blue")
    lens.plot(0, 0, "+", color="tab:red", markersize=12, markeredgewidth=2)
    modulus = (1 - axis_ratio) / (1 + axis_ratio)
    e1, e2 = modulus * np.cos(np.deg2rad(2 * phi)), modulus * np.sin(np.deg2rad(2 * phi))
    lens.text(
        -half_x + 0.03, half_y - 0.03,
        rf"$q = {axis_ratio}$, $\phi = {phi:g}^\circ$" + "\n" + rf"$e_1 = {e1:.3f}$, $e_2 = {e2:.3f}$",
        va="top", fontsize="small", color="tab:blue",
    )
    corner = np.array([0.32, -0.22])
    for name, (dx, dy) in {"N": (0.5, np.sqrt(0.75)), "E": (-np.sqrt(0.75), 0.5)}.items():
        tip = corner + 0.13 * np.array([dx, dy])
        lens.annotate("", tip, corner, arrowprops={"arrowstyle": "-|>", "color": "0.3"})
        lens.text(*(corner + 0.165 * np.array([dx, dy])), name, color="0.3", ha="center", va="center", fontsize="small")
    lens.set(
        title="lens model: arcsec from the image centre",
        xlabel="x (arcsec), towards +column", ylabel="y (arcsec), towards +row",
        xlim=(-half_x, half_x), ylim=(-half_y, half_y), aspect="equal",
    )
    return figure


if __name__ == "__main__":
    draw()
