{
  # A door into CMakeLists.txt for `node-gyp rebuild` and prebuildify; package.json's "gypfile": false keeps npm from
  # opening it at install time.
  'targets': [
    {
      'target_name': 'eepo',
      'type': 'none',
      'actions': [
        {
          'action_name': 'cmake',
          'inputs': [],
          'outputs': ['<(module_root_dir)/build/force'],
          'action': ['node', '<(module_root_dir)/scripts/build-native.cjs'],
        },
      ],
    },
  ],
}
