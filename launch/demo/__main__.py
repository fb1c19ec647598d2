from launch.demo.whole_way import main

main()
