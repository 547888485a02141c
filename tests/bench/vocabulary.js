// Writes the ranks files of the npm package js-tiktoken as tiktoken has them, to measure with.
//   node tests/bench/vocabulary.js PACKAGE_FOLDER OUT_FOLDER
// OUT_FOLDER/NAME.tiktoken for each encoding. The package's own form: lines of "! FIRST_RANK TOKEN TOKEN …".
'use strict';
const fs = require('fs');
const path = require('path');

const [folder, out] = process.argv.slice(2);
for (const name of ['cl100k_base', 'o200k_base']) {
  const ranks = require(path.resolve(folder, 'dist', 'ranks', `${name}.cjs`)).bpe_ranks;
  const lines = [];
  for (const line of ranks.split('\n').filter(Boolean)) {
    const [, first, ...tokens] = line.split(' ');
    tokens.forEach((token, i) => lines.push(`${token} ${Number(first) + i}`));
  }
  fs.writeFileSync(path.join(out, `${name}.tiktoken`), lines.join('\n') + '\n');
}
