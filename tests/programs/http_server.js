// SPDX-License-Identifier: Apache-2.0
//
// Answers /secret with what only its memory knows, and counts the requests.
const secret = String(Math.random());
const words = new Map();
for (let i = 0; i < 100000; ++i) words.set(`word ${i}`, i * 7);
let requests = 0;

require('http')
  .createServer((request, response) => {
    ++requests;
    const right = words.get('word 99999') === 699993 && words.size === 100000;
    response.end(request.url === '/secret' ? secret : right ? `ok ${requests > 0}` : 'wrong');
  })
  .listen(Number(process.argv[2]), '127.0.0.1');
setInterval(() => words.set('word 0', 0), 10);
