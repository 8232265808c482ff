// SPDX-License-Identifier: Apache-2.0
//
// Answers /secret with what only its memory knows, on one of four threads.
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.HashMap;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

public class Answers {
  public static void main(String[] arguments) throws Exception {
    String secret = Long.toString(new Random().nextLong());
    Map<Integer, String> words = new HashMap<>();
    for (int i = 0; i < 100_000; ++i) words.put(i, "word " + i);
    var server =
        HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 0);
    server.createContext("/", exchange -> {
      boolean right = words.size() == 100_000 && words.get(99_999).equals("word 99999");
      boolean asked = exchange.getRequestURI().getPath().equals("/secret");
      byte[] answer = (asked ? secret : right ? "ok" : "wrong").getBytes();
      exchange.getResponseHeaders().set("Connection", "close");
      exchange.sendResponseHeaders(200, answer.length);
      exchange.getResponseBody().write(answer);
      exchange.close();
    });
    var threads = new ThreadPoolExecutor(4, 4, 0, TimeUnit.SECONDS, new LinkedBlockingQueue<>());
    threads.prestartAllCoreThreads();
    server.setExecutor(threads);
    server.start();
  }
}
