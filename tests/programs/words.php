<?php
// SPDX-License-Identifier: Apache-2.0
//
// A table of words, a generator that has come some way, and a temporary file.
$secret = bin2hex(random_bytes(8));
$words = [];
for ($i = 1; $i <= 20000; ++$i) $words["word$i"] = $i * 7;
$count = (function () { for ($i = 1;; ++$i) yield $i; })();
for ($i = 1; $i < 1000; ++$i) $count->next();
$calls = 1000;
$file = tmpfile();
unlink(stream_get_meta_data($file)["uri"]);
fwrite($file, $secret);
fflush($file);

function check() {
  global $words, $count, $calls, $file, $secret;
  foreach ($words as $word => $number) if ($word != "word" . intdiv($number, 7)) return "wrong word";
  if ($count->current() != $calls++) return "wrong: the generator";
  $count->next();
  rewind($file);
  if (fread($file, 100) != $secret) return "wrong: the file";
  return "ok";
}

echo "ready\n";
while (($line = fgets(STDIN)) !== false) echo trim($line) == "secret?" ? $secret : check(), "\n";
