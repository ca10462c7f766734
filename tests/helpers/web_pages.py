"""Pages of the web export, computed with Node instead of a browser. Not a test itself."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

NODE = shutil.which("node")
HARNESS = """
(() => {
  const fs = require("fs"), vm = require("vm"), {body, inputs} = JSON.parse(fs.readFileSync(0, "utf8"));
  const page = fs.readFileSync(process.argv[1], "utf8");
  const part = id => page.split(`id="${id}">`)[1].split("</script>")[0];
  const held = {...JSON.parse(part("model")), weights: part("weights")};
  Object.assign(globalThis, {inputs, held, answers: [], onmessage: null, postMessage: answer => answers.push(answer)});
  vm.runInThisContext(part("worker"));
  process.stdout.write(JSON.stringify(vm.runInThisContext(`(() => { ${body} })()`)));
})();
"""
SHOW = """
onmessage({data: {model: held}});
return inputs.map(({seed, ...request}) => {
  answers.length = 0;
  onmessage({data: {request: {...request, seed: BigInt(seed)}}});
  const {error, pixels, finished} = answers.at(-1);
  return {error, finished, pixels: Array.from(pixels ?? []), width: held.network.width};
});
"""


def compute(page: Path, body: str, inputs: Any = None) -> Any:
    """Run the body of a function after the worker's code of a page. In it, `held` is the model, `inputs` are given."""
    assert NODE is not None
    done = subprocess.run([NODE, "-e", HARNESS, str(page)], input=json.dumps({"body": body, "inputs": inputs}),
                          capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def draw(page: Path, requests: list[dict[str, Any]]) -> np.ndarray:
    """The pictures that the page's worker draws for requests: (N, H, W, 3) uint8."""
    answers = compute(page, SHOW, [{**request, "seed": str(request["seed"])} for request in requests])   # exact
    assert all(answer["finished"] for answer in answers), answers
    pixels = np.array([answer["pixels"] for answer in answers], np.uint8)
    return pixels.reshape(len(requests), -1, answers[0]["width"], 4)[..., :3]
