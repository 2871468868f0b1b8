// The interactive view: niivue with the volumes that this file holds.
"use strict";
(async () => {
  const get = (id) => document.getElementById(id);
  const state = (word) => { document.documentElement.dataset.viewer = word; };
  try {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser offers no WebGL 2");
    const { volumes, tint, focus } = JSON.parse(get("volumes").textContent);
    const load = (v, opacity) => niivue.NVImage.loadFromBase64({
      base64: v.base64, name: `${v.label}.nii.gz`, colormap: v.colours, opacity, cal_min: v.low, cal_max: v.high,
      trustCalMinMax: false,
    });
    const view = new niivue.Niivue({
      backColor: [0, 0, 0, 1], isRadiologicalConvention: true, sagittalNoseLeft: true, dragAndDropEnabled: false,
      multiplanarForceRender: false, multiplanarShowRender: niivue.SHOW_RENDER.NEVER, logLevel: "error",
      loadingText: "", showAllOrientationMarkers: true, fontColor: [1, 1, 1, 1], crosshairColor: [1, 0.6, 0.15, 0.9],
      crosshairWidth: 0.5, crosshairWidthUnit: "mm", crosshairGap: 8,
    });
    await view.attachToCanvas(get("canvas"));
    view.addColormap("inferred", { R: [255, 255], G: [150, 150], B: [40, 40], A: [0, 140], I: [0, 255] });
    const images = await Promise.all(volumes.map((v) => load(v, 1)));
    const over = tint && await load(tint, 1);

    function show() {
      while (view.volumes.length) view.removeVolume(view.volumes[0]);
      view.addVolume(images[Number(get("volume").value)]);
      if (over && get("tint").checked) view.addVolume(over);
      view.drawScene();
    }
    view.onLocationChange = (place) => {
      [0, 1, 2].forEach((i) => { get(`axis-${i}`).value = Math.round(1000 * view.scene.crosshairPos[i]); });
      const [r, a, s] = place.mm;
      const value = place.values.length ? `, value ${Number(place.values[0].value).toPrecision(4)}` : "";
      get("place").textContent = `R ${r.toFixed(1)}, A ${a.toFixed(1)}, S ${s.toFixed(1)} mm${value}`;
    };
    [0, 1, 2].forEach((i) => get(`axis-${i}`).addEventListener("input", (event) => {
      view.scene.crosshairPos[i] = Number(event.target.value) / 1000;
      view.drawScene();
      view.createOnLocationChange();
    }));
    get("volume").addEventListener("change", show);
    get("tint").addEventListener("change", show);
    get("planes").addEventListener("change", (event) => view.setSliceType(Number(event.target.value)));
    get("viewer-controls").hidden = false;
    view.setSliceType(view.sliceTypeMultiplanar);
    show();
    view.scene.crosshairPos = view.mm2frac(focus);
    view.drawScene();
    view.createOnLocationChange();
    state("ready");
  } catch (error) {
    get("canvas").parentElement.hidden = true;
    get("viewer-fails").textContent = `The interactive view cannot be drawn (${error.message}). The pictures above do without it.`;
    get("viewer-fails").hidden = false;
    state("failed");
  }
})();
