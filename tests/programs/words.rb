# SPDX-License-Identifier: Apache-2.0
#
# A table of words, a fiber that has come some way, a thread that waits, and a deleted file.
require "securerandom"
require "tempfile"

secret = SecureRandom.hex(8)
words = (1..20_000).to_h { |i| ["word#{i}", i * 7] }
count = Fiber.new { (1..).each { |i| Fiber.yield i } }
1000.times { count.resume }
calls = 1000
questions = Queue.new
answers = Queue.new
Thread.new { loop { answers << questions.pop * 2 } }
file = Tempfile.create(anonymous: true) rescue file = Tempfile.create("words").tap { |f| File.unlink(f.path) }
file.write(secret)
file.flush

check = lambda do
  words.each { |word, number| raise word unless word == "word#{number / 7}" }
  calls += 1
  raise "fiber" unless count.resume == calls
  questions << calls
  raise "thread" unless answers.pop == calls * 2
  file.rewind
  raise "file" unless file.read == secret
  "ok"
end

$stdout.sync = true
puts "ready"
$stdin.each_line { |line| puts line.strip == "secret?" ? secret : check.call }
